#include "system.h"

#include <fcntl.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <sched.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "failure.h"

namespace runner {
namespace {

constexpr size_t kMostText = 4096;

std::string after_colon(const std::string& line) {
  const size_t colon = line.find(':');
  const size_t start = line.find_first_not_of(" \t", colon + 1);
  return colon == std::string::npos || start == std::string::npos ? "" : line.substr(start);
}

std::string status_line(const char* name) {
  std::ifstream stream("/proc/self/status");
  for (std::string line; std::getline(stream, line);) {
    if (line.rfind(name, 0) == 0) return after_colon(line);
  }
  return "";
}

// Uses plain read(2): the kernel generates a sysfs file for each read, so it must be read at once.
std::optional<std::string> read_text(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return std::nullopt;
  std::string text(kMostText, '\0');
  const ssize_t size = read(file, text.data(), text.size());
  close(file);
  if (size < 0) return std::nullopt;
  text.resize(static_cast<size_t>(size));
  return text;
}

}  // namespace

int64_t now_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

void keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  mallopt(M_MMAP_THRESHOLD, 1 << 25);  // the most glibc allows
#endif
}

void set_affinity(const std::string& hexadecimal_mask) {
  if (hexadecimal_mask.empty()) return;
  const uint64_t mask = std::stoull(hexadecimal_mask, nullptr, 16);
  cpu_set_t cores;
  CPU_ZERO(&cores);
  for (int core = 0; core < 64; ++core) {
    if (mask >> core & 1) CPU_SET(core, &cores);
  }
  if (sched_setaffinity(0, sizeof(cores), &cores) != 0) {
    throw Failure(Kind::unsupported, "Cannot run on cores " + hexadecimal_mask + ": " + std::strerror(errno));
  }
}

std::string cores_allowed() { return status_line("Cpus_allowed_list:"); }

std::vector<std::pair<std::string, std::string>> cpu_parts() {
  std::vector<std::pair<std::string, std::string>> parts;
  std::ifstream stream("/proc/cpuinfo");
  std::string implementer;
  for (std::string line; std::getline(stream, line);) {
    if (line.rfind("CPU implementer", 0) == 0) implementer = after_colon(line);
    if (line.rfind("CPU part", 0) == 0) parts.emplace_back(implementer, after_colon(line));
  }
  return parts;
}

std::string machine() {
  utsname names{};
  return uname(&names) == 0 ? names.machine : "";
}

std::optional<int64_t> peak_bytes() {
  const std::string kilobytes = status_line("VmHWM:");
  if (kilobytes.empty()) return std::nullopt;
  return std::strtoll(kilobytes.c_str(), nullptr, 10) * 1024;
}

std::map<std::string, std::string> read_texts(const std::vector<std::string>& paths) {
  std::map<std::string, std::string> texts;
  for (const std::string& path : paths) {
    if (auto text = read_text(path)) texts.emplace(path, std::move(*text));
  }
  return texts;
}

}  // namespace runner
