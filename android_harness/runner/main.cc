// Measures one model on this machine. android_harness/protocol.py describes both JSON files.
#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "backend.h"
#include "canary.h"
#include "failure.h"
#include "job.h"
#include "result.h"
#include "sha256.h"
#include "system.h"
#include "timing.h"

namespace runner {
namespace {

constexpr int64_t kMostCanaries = 100'000;
constexpr size_t kProfiledCalls = 20;
constexpr const char* kUsage =
    "usage: runner run JOB.json | runner outputs JOB.json | runner profile JOB.json | "
    "runner canary CALLS RESULT.json [AFFINITY] | runner --version | runner sha256 FILE";

std::vector<Sample> read_samples(const Job& job) {
  std::vector<Sample> samples;
  for (const auto& files : job.samples) {
    samples.emplace_back();
    for (const TensorFile& file : files) samples.back().push_back(read_tensor(file));
  }
  return samples;
}

void check_model(const Job& job) {
  if (job.backend != kBackendName) {
    throw Failure(Kind::unsupported, "This runner was built for " + std::string(kBackendName) + ", not for " +
                                         job.backend);
  }
  const std::string found = sha256_of_file(job.model);
  if (found != job.sha256) {
    throw Failure(Kind::hash, job.model + " has sha256 " + found + ", not " + job.sha256);
  }
}

std::vector<TensorFile> write_outputs(const Sample& outputs, const std::string& stem) {
  std::vector<TensorFile> files;
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Tensor& tensor = outputs[i];
    files.push_back({stem + std::to_string(i) + ".bin", tensor.dtype, tensor.shape});
    write_atomically(files.back().file, reinterpret_cast<const char*>(tensor.bytes.data()),
                     tensor.bytes.size());
  }
  return files;
}

// A hint that processors ignore, for emulators: they may count what is executed between two of them.
void mark() {
#ifdef __aarch64__
  asm volatile("hint #100" ::: "memory");
#endif
}

// Runs after the timed calls in the same process, so that the checked outputs are those of the measured model.
std::vector<std::vector<TensorFile>> answer_all(Backend& backend, const std::vector<Sample>& samples,
                                                const Job& job) {
  std::vector<std::vector<TensorFile>> outputs;
  for (size_t i = 0; i < samples.size(); ++i) {
    backend.set_inputs(samples[i]);
    mark();
    backend.run();
    mark();
    outputs.push_back(write_outputs(backend.outputs(), job.outputs + "/" + std::to_string(i) + "-"));
  }
  return outputs;
}

// Hashing loads the file into the page cache, so that load_ns measures the runtime and not the storage.
nlohmann::json run_job(const Job& job) {
  check_model(job);
  set_affinity(job.affinity);  // before a runtime creates threads, which inherit it
  const std::vector<Sample> samples = read_samples(job);
  auto backend = make_backend();
  const int64_t began = now_ns();
  backend->load(job.model, job.threads, "");
  Measured measured{backend->runtime(), now_ns() - began, {}, {}, {}};
  measured.timings = measure(*backend, samples, job);
  if (job.fresh) {  // the timed calls have changed its state; never two at once, for the peak of memory
    backend.reset();
    backend = make_backend();
    backend->load(job.model, job.threads, "");
  }
  measured.outputs = answer_all(*backend, samples, job);
  return result_json(measured);
}

// Only computes the outputs, for processors that are too slow or not real enough to be timed.
nlohmann::json outputs_of_job(const Job& job) {
  check_model(job);
  const std::vector<Sample> samples = read_samples(job);
  const auto backend = make_backend();
  backend->load(job.model, job.threads, "");
  Measured measured{backend->runtime(), 0, {}, {}, {}};
  measured.outputs = answer_all(*backend, samples, job);
  return result_json(measured);
}

// Times operators, in a process of its own: a runtime that does so is slower.
nlohmann::json profile_of_job(const Job& job) {
  check_model(job);
  set_affinity(job.affinity);
  const std::vector<Sample> samples = read_samples(job);
  const auto backend = make_backend();
  backend->load(job.model, job.threads, job.outputs + "/profile");
  for (size_t call = 0; call < kProfiledCalls; ++call) {
    backend->set_inputs(samples[call % samples.size()]);
    backend->run();
  }
  return profile_json({backend->runtime(), 0, {}, {}, backend->operators()});
}

// Turns every exception into a Failure.
template <typename Work>
auto translated(Work work) {
  try {
    return work();
  } catch (const Failure&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw Failure(Kind::memory, "Out of memory");
  } catch (const std::exception& error) {
    throw failure_of(Kind::run, error.what());
  }
}

int report(const Failure& failure, const std::string& result) {
  std::fprintf(stderr, "%s: %s\n", std::string(name_of(failure.kind())).c_str(), failure.what());
  if (!result.empty()) write_json(result, failure_json(failure));
  return failure.exit_code();
}

template <typename Work>
int run(const std::string& path, Work work) {
  const nlohmann::json text = translated([&] { return read_json(path); });
  const bool answerable = text.contains("result") && text.at("result").is_string();
  const std::string result = answerable ? text.at("result").get<std::string>() : "";
  try {
    write_json(result, translated([&] { return work(parse_job(text)); }));
    return 0;
  } catch (const Failure& failure) {
    return report(failure, result);
  }
}

int64_t canary_calls(const std::string& text) {
  if (text.empty() || text.size() > 6 || text.find_first_not_of("0123456789") != std::string::npos) {
    throw Failure(Kind::usage, kUsage);
  }
  const int64_t calls = std::stoll(text);
  if (calls < 1 || calls > kMostCanaries) throw Failure(Kind::usage, "CALLS is not within 1 to 100000");
  return calls;
}

std::string mask(const std::string& text) {
  if (text.size() > 16 || text.find_first_not_of("0123456789abcdef") != std::string::npos) {
    throw Failure(Kind::usage, "AFFINITY is not a hexadecimal mask: " + text);
  }
  return text;
}

int canary(const std::vector<std::string>& arguments) {
  const int64_t calls = canary_calls(arguments[1]);
  if (arguments.size() == 4) set_affinity(mask(arguments[3]));
  write_json(arguments[2], canary_json(canary_ns(calls)));
  return 0;
}

int dispatch(const std::vector<std::string>& arguments) {
  const std::string command = arguments.empty() ? "" : arguments[0];
  if (command == "run" && arguments.size() == 2) return run(arguments[1], run_job);
  if (command == "outputs" && arguments.size() == 2) return run(arguments[1], outputs_of_job);
  if (command == "profile" && arguments.size() == 2) return run(arguments[1], profile_of_job);
  if (command == "canary" && (arguments.size() == 3 || arguments.size() == 4)) return canary(arguments);
  if (command == "sha256" && arguments.size() == 2) {
    return std::printf("%s\n", sha256_of_file(arguments[1]).c_str()), 0;
  }
  if (command == "--version" && arguments.size() == 1) {
    return std::printf("%s\n", runner_json().dump().c_str()), 0;
  }
  throw Failure(Kind::usage, kUsage);
}

}  // namespace
}  // namespace runner

int main(int count, char** values) {
  runner::keep_freed_memory();
  try {
    return runner::translated([&] { return runner::dispatch({values + 1, values + count}); });
  } catch (const runner::Failure& failure) {
    return runner::report(failure, "");
  }
}
