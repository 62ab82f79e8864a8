#pragma once

#include <cstdint>
#include <vector>

namespace runner {

// Returns the durations of a fixed computation of a few milliseconds that needs only a core. If it slows down
// between two launches, the device has changed, not the model.
std::vector<int64_t> canary_ns(int64_t calls);

}  // namespace runner
