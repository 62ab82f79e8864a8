#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace runner {

// CLOCK_MONOTONIC_RAW: not slewed by NTP while we measure.
int64_t now_ns();

// glibc gives freed memory back to the kernel at once when it lies at the heap's end, and LibTorch frees all it
// used in every call: page faults made MobileNetV2 1.6 times slower than in a Python process, whose heap
// happens to end elsewhere. Android's allocators keep freed pages by themselves.
void keep_freed_memory();

// Throws Failure(unsupported) when the system does not let us run on these cores.
void set_affinity(const std::string& hexadecimal_mask);

// "4-7": what the system really allows, whatever was asked for.
std::string cores_allowed();

// (implementer, part) of each core; empty where /proc/cpuinfo lists none (x86).
std::vector<std::pair<std::string, std::string>> cpu_parts();

// `uname -m`
std::string machine();

// The most memory this process ever had resident. It includes the job's samples and, on the host, the
// libraries that the Python wheels drag along.
std::optional<int64_t> peak_bytes();

// Path -> its text, cut to what the protocol allows; what cannot be read is left out.
std::map<std::string, std::string> read_texts(const std::vector<std::string>& paths);

}  // namespace runner
