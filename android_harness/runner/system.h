#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace runner {

// CLOCK_MONOTONIC_RAW, which NTP does not adjust.
int64_t now_ns();

// glibc gives freed memory back to the kernel at once when it lies at the heap's end, and LibTorch frees all it
// used in every call: page faults made MobileNetV2 1.6 times slower than in a Python process, whose heap
// happens to end elsewhere. Android's allocators keep freed pages by themselves.
void keep_freed_memory();

// Throws Failure(unsupported) if the system does not allow these cores.
void set_affinity(const std::string& hexadecimal_mask);

// Returns the cores that the system really allows, such as "4-7".
std::string cores_allowed();

// Returns (implementer, part) of each core; empty if /proc/cpuinfo lists none (x86).
std::vector<std::pair<std::string, std::string>> cpu_parts();

// `uname -m`
std::string machine();

// Returns the peak resident memory of this process. It includes the job's samples and, on the host, the
// libraries of the Python wheels.
std::optional<int64_t> peak_bytes();

// Returns path -> text, cut to the protocol's limit; unreadable files are left out.
std::map<std::string, std::string> read_texts(const std::vector<std::string>& paths);

}  // namespace runner
