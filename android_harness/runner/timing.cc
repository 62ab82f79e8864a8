#include "timing.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "system.h"

namespace runner {
namespace {

constexpr size_t kMostCalls = 10'000'000;  // protocol.py's MAX_CALLS
constexpr int64_t kRoom = 4096;

class Calls {
 public:
  Calls(Backend& backend, const std::vector<Sample>& samples) : backend_(backend), samples_(samples) {}

  // Setting the inputs is not timed: apps write into their own buffers.
  void prepare() { backend_.set_inputs(samples_[next_++ % samples_.size()]); }
  int64_t timed(int64_t& start) {
    start = now_ns();
    backend_.run();
    return now_ns() - start;
  }

 private:
  Backend& backend_;
  const std::vector<Sample>& samples_;
  size_t next_ = 0;
};

// Implements AndroidX Benchmark's rule: the warm-up ends when a fast and a slow moving average agree.
class Settling {
 public:
  explicit Settling(const Warmup& rule) : rule_(rule) {}

  bool add(int64_t duration_ns, int64_t elapsed_ns) {
    const double value = static_cast<double>(duration_ns);
    fast_ = calls_ ? rule_.fast * value + (1 - rule_.fast) * fast_ : value;
    slow_ = calls_ ? rule_.slow * value + (1 - rule_.slow) * slow_ : value;
    ++calls_;
    in_a_row_ = std::abs(fast_ - slow_) <= rule_.tolerance * slow_ ? in_a_row_ + 1 : 0;
    return calls_ >= rule_.min_calls && elapsed_ns >= rule_.min_ns && in_a_row_ >= rule_.settled_calls;
  }
  int64_t calls() const { return calls_; }

 private:
  const Warmup& rule_;
  double fast_ = 0, slow_ = 0;
  int64_t calls_ = 0, in_a_row_ = 0;
};

void warm_up(Calls& calls, const Warmup& rule, Timings& timings) {
  Settling settling(rule);
  const int64_t began = now_ns();
  for (int64_t elapsed = 0; !timings.warm && elapsed < rule.max_ns;) {
    int64_t start = 0;
    calls.prepare();
    const int64_t duration = calls.timed(start);
    elapsed = now_ns() - began;
    timings.warm = settling.add(duration, elapsed);
  }
  timings.warmup_calls = settling.calls();
}

// Grows and touches its pages only between chunks, so that no timed call pays for them.
void make_room(std::vector<int64_t>& values, size_t used) {
  values.resize(std::min(kMostCalls, used + std::max<size_t>(kRoom, used / 2)));
}

bool enough(const Timed& plan, int64_t calls, int64_t elapsed_ns) {
  const bool minima_met = calls >= plan.min_calls && elapsed_ns >= plan.min_ns;
  return minima_met || elapsed_ns >= plan.max_ns || calls >= static_cast<int64_t>(kMostCalls);
}

void timed_calls(Calls& calls, const Job& job, Timings& timings) {
  size_t used = 0;
  int64_t began = 0, elapsed = 0, chunk_began = 0;
  timings.clocks.push_back({0, read_texts(job.watch)});
  do {
    make_room(timings.durations_ns, used);
    make_room(timings.offsets_ns, used);
    chunk_began = elapsed;
    do {
      int64_t start = 0;
      calls.prepare();
      const int64_t duration = calls.timed(start);
      if (used == 0) began = start;
      timings.durations_ns[used] = duration;
      timings.offsets_ns[used++] = start - began;
      elapsed = start + duration - began;
    } while (elapsed - chunk_began < job.timed.chunk_ns && used < timings.durations_ns.size() &&
             !enough(job.timed, static_cast<int64_t>(used), elapsed));
    timings.clocks.push_back({now_ns() - began, read_texts(job.watch)});
  } while (!enough(job.timed, static_cast<int64_t>(used), elapsed));
  timings.durations_ns.resize(used);
  timings.offsets_ns.resize(used);
}

}  // namespace

Timings measure(Backend& backend, const std::vector<Sample>& samples, const Job& job) {
  Timings timings;
  Calls calls(backend, samples);
  int64_t start = 0;
  calls.prepare();
  timings.first_ns = calls.timed(start);
  warm_up(calls, job.warmup, timings);
  timed_calls(calls, job, timings);
  return timings;
}

}  // namespace runner
