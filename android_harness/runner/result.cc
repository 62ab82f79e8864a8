#include "result.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "job.h"
#include "system.h"

namespace runner {
namespace {

using nlohmann::json;

constexpr size_t kMostText = 4000;

#ifdef __ANDROID__
constexpr const char* kOs = "android";
constexpr int kAndroidApi = __ANDROID_API__;
#else
constexpr const char* kOs = "linux";
constexpr int kAndroidApi = 0;
#endif

#if defined(__aarch64__)
constexpr const char* kArch = "aarch64";
#elif defined(__x86_64__)
constexpr const char* kArch = "x86_64";
#else
#error "The protocol knows aarch64 and x86_64."
#endif

#ifdef __clang__
constexpr const char* kCompiler = "clang " __clang_version__;
#else
constexpr const char* kCompiler = "gcc " __VERSION__;
#endif

json base() {
  return {{"protocol", kProtocol}, {"runner", runner_json()}, {"machine", machine()}, {"parts", cpu_parts()}};
}

json tensors_json(const std::vector<TensorFile>& tensors) {
  json all = json::array();
  for (const TensorFile& tensor : tensors) {
    all.push_back({{"file", tensor.file}, {"dtype", name_of(tensor.dtype)}, {"shape", tensor.shape}});
  }
  return all;
}

[[noreturn]] void fail(const std::string& path) {
  throw Failure(Kind::io, path + ": " + std::strerror(errno));
}

void write_all(int file, const char* data, size_t size, const std::string& path) {
  while (size > 0) {
    const ssize_t written = write(file, data, size);
    if (written < 0 && errno != EINTR) fail(path);
    if (written > 0) data += written, size -= static_cast<size_t>(written);
  }
}

void sync_folder_of(const std::string& path) {
  const auto folder = std::filesystem::path(path).parent_path();
  const int handle = open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (handle < 0) return;  // some Android folders cannot be opened; the file itself is synced
  fsync(handle);
  close(handle);
}

}  // namespace

json runner_json() {
  return {{"version", RUNNER_VERSION}, {"os", kOs},
          {"arch", kArch},             {"android_api", kAndroidApi},
          {"compiler", kCompiler},     {"backends", json::array({kBackendName})}};
}

json result_json(const Measured& measured) {
  json value = base();
  const Timings& timings = measured.timings;
  value["runtime"] = measured.runtime;
  value["load_ns"] = measured.load_ns;
  value["first_ns"] = timings.first_ns;
  value["warmup_calls"] = timings.warmup_calls;
  value["warm"] = timings.warm;
  value["durations_ns"] = timings.durations_ns;
  value["offsets_ns"] = timings.offsets_ns;
  value["clocks"] = json::array();
  for (const Moment& moment : timings.clocks) {
    value["clocks"].push_back({{"at_ns", moment.at_ns}, {"texts", moment.texts}});
  }
  const auto peak = peak_bytes();
  value["peak_bytes"] = peak ? json(*peak) : json();
  value["cores_allowed"] = cores_allowed();
  value["outputs"] = json::array();
  for (const auto& sample : measured.outputs) value["outputs"].push_back(tensors_json(sample));
  return value;
}

json profile_json(const Measured& measured) {
  json value = base();
  value["runtime"] = measured.runtime;
  value["operators"] = json::array();
  for (const Operator& one : measured.operators) {
    value["operators"].push_back({{"name", one.name}, {"kind", one.kind}, {"durations_ns", one.durations_ns}});
  }
  return value;
}

json failure_json(const Failure& failure) {
  json value = base();
  const std::string reason = std::string(failure.what()).substr(0, kMostText);
  value["failure"] = {{"kind", name_of(failure.kind())}, {"reason", reason}};
  return value;
}

json canary_json(const std::vector<int64_t>& durations_ns) {
  return {{"protocol", kProtocol}, {"runner", runner_json()}, {"durations_ns", durations_ns}};
}

void write_atomically(const std::string& path, const char* data, size_t size) {
  const std::string aside = path + ".part";
  const int file = open(aside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) fail(aside);
  try {
    write_all(file, data, size, aside);
    if (fsync(file) != 0) fail(aside);
  } catch (...) {
    close(file);
    unlink(aside.c_str());
    throw;
  }
  close(file);
  if (std::rename(aside.c_str(), path.c_str()) != 0) fail(path);
  sync_folder_of(path);
}

void write_json(const std::string& path, const json& value) {
  const std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
  write_atomically(path, text.data(), text.size());
}

}  // namespace runner
