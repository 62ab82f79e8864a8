#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend.h"
#include "failure.h"
#include "nlohmann/json.hpp"
#include "tensor.h"
#include "timing.h"

namespace runner {

struct Measured {
  std::string runtime;
  int64_t load_ns;
  Timings timings;
  std::vector<std::vector<TensorFile>> outputs;
  std::vector<Operator> operators;
};

// The Runner of protocol.py, fixed when this program was compiled.
nlohmann::json runner_json();

nlohmann::json result_json(const Measured& measured);
nlohmann::json profile_json(const Measured& measured);
nlohmann::json failure_json(const Failure& failure);
nlohmann::json canary_json(const std::vector<int64_t>& durations_ns);

// Writes a complete file or none: it is synced before it is renamed. Throws Failure(io).
void write_atomically(const std::string& path, const char* data, size_t size);
void write_json(const std::string& path, const nlohmann::json& value);

}  // namespace runner
