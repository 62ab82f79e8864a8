#include "canary.h"

#include <array>
#include <cstddef>

#include "system.h"

namespace runner {
namespace {

constexpr int kRounds = 12000;
constexpr size_t kValues = 2048;              // 8 KB: fits into every first-level cache
constexpr int64_t kSettleNs = 200'000'000;  // governors need some tens of milliseconds to raise the clock

// Volatile, so that the compiler can neither skip nor precompute a call.
volatile float g_seed = 0.5F;
volatile float g_sink = 0.0F;

void compute() {
  std::array<float, kValues> values{};
  const float seed = g_seed;
  for (size_t i = 0; i < kValues; ++i) values[i] = seed + static_cast<float>(i) * 1e-4F;
  for (int round = 0; round < kRounds; ++round) {
    for (float& value : values) value = value * 0.999F + seed * 0.001F;
  }
  float sum = 0.0F;
  for (float value : values) sum += value;
  g_sink = sum;
}

}  // namespace

std::vector<int64_t> canary_ns(int64_t calls) {
  std::vector<int64_t> durations(static_cast<size_t>(calls));
  for (const int64_t began = now_ns(); now_ns() - began < kSettleNs;) compute();
  for (int64_t& duration : durations) {
    const int64_t start = now_ns();
    compute();
    duration = now_ns() - start;
  }
  return durations;
}

}  // namespace runner
