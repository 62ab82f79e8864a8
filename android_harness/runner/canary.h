#pragma once

#include <cstdint>
#include <vector>

namespace runner {

// Durations of a pinned computation of a few milliseconds that needs nothing but a core: when it slows
// between two launches, the device changed, not the model.
std::vector<int64_t> canary_ns(int64_t calls);

}  // namespace runner
