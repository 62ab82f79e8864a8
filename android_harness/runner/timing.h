#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "backend.h"
#include "job.h"

namespace runner {

struct Moment {
  int64_t at_ns;
  std::map<std::string, std::string> texts;
};

struct Timings {
  int64_t first_ns = 0;
  int64_t warmup_calls = 0;
  bool warm = false;
  std::vector<int64_t> durations_ns, offsets_ns;
  std::vector<Moment> clocks;
};

// Runs the first call, the warm-up and the timed calls, cycling through the samples.
Timings measure(Backend& backend, const std::vector<Sample>& samples, const Job& job);

}  // namespace runner
