#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "tensor.h"

namespace runner {

constexpr int kProtocol = 1;

struct Warmup {
  int64_t min_calls, min_ns, settled_calls, max_ns;
  double tolerance, fast, slow;
};

struct Timed {
  int64_t min_calls, min_ns, max_ns, chunk_ns;
};

// android_harness/protocol.py's Job. Every key is required: the sender writes its defaults.
struct Job {
  std::string backend, model, sha256, affinity, outputs, result;
  int threads;
  std::vector<std::vector<TensorFile>> samples;
  Warmup warmup;
  Timed timed;
  std::vector<std::string> watch;
  bool fresh;
};

// Throws Failure(usage) if the file cannot be read or is not a JSON object.
nlohmann::json read_json(const std::string& path);

// Throws Failure(protocol) for another protocol, an unknown or missing key, or a value of the wrong type.
Job parse_job(const nlohmann::json& text);

}  // namespace runner
