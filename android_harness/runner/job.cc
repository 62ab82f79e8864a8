#include "job.h"

#include <algorithm>
#include <fstream>
#include <initializer_list>
#include <string_view>

#include "failure.h"

namespace runner {
namespace {

using nlohmann::json;

constexpr size_t kMostDimensions = 16;
constexpr int64_t kMostThreads = 64;

[[noreturn]] void refuse(const std::string& reason) { throw Failure(Kind::protocol, "The job: " + reason); }

// An unknown key may change the meaning of the known keys.
void expect_keys(const json& object, const char* what, std::initializer_list<std::string_view> keys) {
  if (!object.is_object()) refuse(std::string(what) + " is no object");
  for (const auto& item : object.items()) {
    if (std::find(keys.begin(), keys.end(), item.key()) == keys.end()) {
      refuse(std::string(what) + " has an unknown key \"" + item.key() + '"');
    }
  }
  for (std::string_view key : keys) {
    if (!object.contains(key)) refuse(std::string(what) + " lacks \"" + std::string(key) + '"');
  }
}

int64_t count(const json& object, const char* key) {
  const json& value = object.at(key);
  if (!value.is_number_integer() || value.get<int64_t>() < 0) {
    refuse(std::string(key) + " is no whole number from 0 up: " + value.dump());
  }
  return value.get<int64_t>();
}

double number(const json& object, const char* key) {
  const json& value = object.at(key);
  if (!value.is_number()) refuse(std::string(key) + " is no number: " + value.dump());
  return value.get<double>();
}

bool flag(const json& object, const char* key) {
  const json& value = object.at(key);
  if (!value.is_boolean()) refuse(std::string(key) + " is neither true nor false: " + value.dump());
  return value.get<bool>();
}

std::string text(const json& object, const char* key) {
  const json& value = object.at(key);
  if (!value.is_string()) refuse(std::string(key) + " is no text: " + value.dump());
  return value.get<std::string>();
}

const json& list(const json& value, const char* what) {
  if (!value.is_array()) refuse(std::string(what) + " is no list");
  return value;
}

bool is_hex(const std::string& value) {
  return value.find_first_not_of("0123456789abcdef") == std::string::npos;
}

TensorFile tensor_file(const json& object) {
  expect_keys(object, "a tensor", {"file", "dtype", "shape"});
  TensorFile tensor{text(object, "file"), dtype_named(text(object, "dtype")), {}};
  for (const json& length : list(object.at("shape"), "a shape")) {
    if (!length.is_number_integer()) refuse("a shape contains " + length.dump());
    tensor.shape.push_back(length.get<int64_t>());
  }
  if (tensor.shape.size() > kMostDimensions) refuse("a shape has more than 16 dimensions");
  return tensor;
}

std::vector<std::vector<TensorFile>> samples(const json& value) {
  std::vector<std::vector<TensorFile>> all;
  for (const json& sample : list(value, "samples")) {
    all.emplace_back();
    for (const json& tensor : list(sample, "a sample")) all.back().push_back(tensor_file(tensor));
  }
  if (all.empty()) throw Failure(Kind::input, "The job has no sample");
  return all;
}

Warmup warmup(const json& object) {
  expect_keys(object, "warmup",
              {"min_calls", "min_ns", "settled_calls", "tolerance", "fast", "slow", "max_ns"});
  return {count(object, "min_calls"), count(object, "min_ns"),    count(object, "settled_calls"),
          count(object, "max_ns"),    number(object, "tolerance"), number(object, "fast"),
          number(object, "slow")};
}

Timed timed(const json& object) {
  expect_keys(object, "timed", {"min_calls", "min_ns", "max_ns", "chunk_ns"});
  return {count(object, "min_calls"), count(object, "min_ns"), count(object, "max_ns"),
          count(object, "chunk_ns")};
}

std::vector<std::string> watched(const json& value) {
  std::vector<std::string> paths;
  for (const json& path : list(value, "watch")) {
    if (!path.is_string()) refuse("watch holds " + path.dump());
    paths.push_back(path.get<std::string>());
  }
  return paths;
}

int threads(const json& object) {
  const int64_t wanted = count(object, "threads");
  if (wanted > kMostThreads) refuse("threads is not within 0 to 64");
  return static_cast<int>(wanted);
}

}  // namespace

json read_json(const std::string& path) {
  std::ifstream stream(path);
  if (!stream) throw Failure(Kind::usage, path + " cannot be read");
  json value = json::parse(stream, nullptr, /*allow_exceptions=*/false);
  if (!value.is_object()) throw Failure(Kind::usage, path + " is no JSON object");
  return value;
}

Job parse_job(const json& object) {
  if (!object.contains("protocol") || object.at("protocol") != kProtocol) {
    refuse("this runner knows only protocol " + std::to_string(kProtocol));
  }
  expect_keys(object, "it",
              {"protocol", "backend", "model", "sha256", "threads", "affinity", "samples", "warmup", "timed",
               "watch", "fresh", "outputs", "result"});
  Job job{text(object, "backend"),
          text(object, "model"),
          text(object, "sha256"),
          text(object, "affinity"),
          text(object, "outputs"),
          text(object, "result"),
          threads(object),
          samples(object.at("samples")),
          warmup(object.at("warmup")),
          timed(object.at("timed")),
          watched(object.at("watch")),
          flag(object, "fresh")};
  if (job.sha256.size() != 64 || !is_hex(job.sha256)) refuse("sha256 is not 64 hexadecimal digits");
  if (job.affinity.size() > 16 || !is_hex(job.affinity)) refuse("affinity is not a hexadecimal mask");
  return job;
}

}  // namespace runner
