#include <array>
#include <cstring>
#include <fstream>
#include <map>

#include "backend.h"
#include "failure.h"
#include "nlohmann/json.hpp"
#include "onnxruntime_c_api.h"

namespace runner {

const char* const kBackendName = "onnxruntime";

namespace {

struct Row {
  Dtype dtype;
  ONNXTensorElementDataType type;
};

constexpr std::array<Row, 9> kTypes{{{Dtype::float32, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
                                     {Dtype::float64, ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE},
                                     {Dtype::float16, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16},
                                     {Dtype::int64, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
                                     {Dtype::int32, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32},
                                     {Dtype::int16, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16},
                                     {Dtype::int8, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8},
                                     {Dtype::uint8, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8},
                                     {Dtype::boolean, ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL}}};

constexpr std::string_view kKernelTime = "_kernel_time";

ONNXTensorElementDataType type_of(Dtype dtype) { return kTypes[static_cast<size_t>(dtype)].type; }

Dtype dtype_of(ONNXTensorElementDataType type) {
  for (const Row& row : kTypes) {
    if (row.type == type) return row.dtype;
  }
  throw Failure(Kind::unsupported, "ONNX Runtime's element type " + std::to_string(type));
}

class OnnxRuntime final : public Backend {
 public:
  OnnxRuntime() : api_(OrtGetApiBase()->GetApi(ORT_API_VERSION)) {
    if (!api_) throw Failure(Kind::unsupported, "libonnxruntime is older than the headers it was built with");
  }

  ~OnnxRuntime() override {
    release(inputs_);
    release(outputs_);
    if (memory_) api_->ReleaseMemoryInfo(memory_);
    if (session_) api_->ReleaseSession(session_);
    if (options_) api_->ReleaseSessionOptions(options_);
    if (env_) api_->ReleaseEnv(env_);
  }

  std::string runtime() const override {
    return std::string("onnxruntime ") + OrtGetApiBase()->GetVersionString();
  }

  void load(const std::string& model, int threads, const std::string& profile) override {
    const auto kind = Kind::model;
    check(api_->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "runner", &env_), kind);
    check(api_->CreateSessionOptions(&options_), kind);
    check(api_->SetIntraOpNumThreads(options_, threads), kind);
    // Without VNNI, x86-64 sums int8 products in 16 bits and saturates: exact sums, as in the verification.
    // With VNNI and on Arm this changes nothing.
    check(api_->AddSessionConfigEntry(options_, "session.x64quantprecision", "1"), kind);
    if (!profile.empty()) check(api_->EnableProfiling(options_, profile.c_str()), kind);
    check(api_->CreateSession(env_, model.c_str(), options_, &session_), kind);
    check(api_->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory_), kind);
    input_names_ = names(true);
    output_names_ = names(false);
    outputs_.resize(output_names_.size());
  }

  void set_inputs(const Sample& sample) override {
    if (sample.size() != input_names_.size()) {
      throw Failure(Kind::input, "The model takes " + std::to_string(input_names_.size()) + " inputs, not " +
                                     std::to_string(sample.size()));
    }
    release(inputs_);
    release(outputs_);
    inputs_.resize(sample.size());
    outputs_.resize(output_names_.size());
    for (size_t i = 0; i < sample.size(); ++i) inputs_[i] = value_of(sample[i], i);
  }

  void run() override {
    check(api_->Run(session_, nullptr, input_pointers_.data(), inputs_.data(), inputs_.size(),
                    output_pointers_.data(), outputs_.size(), outputs_.data()),
          Kind::run);
  }

  Sample outputs() override {
    Sample sample;
    for (OrtValue* value : outputs_) sample.push_back(tensor_of(value));
    return sample;
  }

  // The profiler writes whole microseconds as a JSON list of events, one for each execution of a node.
  std::vector<Operator> operators() override {
    const std::string path = end_profile();
    std::ifstream stream(path);
    const auto events = nlohmann::json::parse(stream, nullptr, /*allow_exceptions=*/false);
    std::remove(path.c_str());
    if (!events.is_array()) throw Failure(Kind::run, "ONNX Runtime wrote no profile");
    std::vector<Operator> all;
    std::map<std::string, size_t> places;
    for (const auto& event : events) {
      std::string name = event.value("name", "");
      if (event.value("cat", "") != "Node" || !name.ends_with(kKernelTime)) continue;
      name.resize(name.size() - kKernelTime.size());
      const auto [place, first] = places.emplace(name, all.size());
      if (first) all.push_back({name, event.at("args").value("op_name", ""), {}});
      all[place->second].durations_ns.push_back(event.value("dur", int64_t{0}) * 1000);
    }
    return all;
  }

 private:
  std::string end_profile() {
    char* name = nullptr;
    OrtAllocator* allocator = nullptr;
    check(api_->GetAllocatorWithDefaultOptions(&allocator), Kind::run);
    check(api_->SessionEndProfiling(session_, allocator, &name), Kind::run);
    const std::string path = name;
    check(api_->AllocatorFree(allocator, name), Kind::run);
    return path;
  }

  void check(OrtStatus* status, Kind kind) const {
    if (!status) return;
    const std::string words = api_->GetErrorMessage(status);
    api_->ReleaseStatus(status);
    throw failure_of(kind, words);
  }

  void release(std::vector<OrtValue*>& values) const {
    for (OrtValue* value : values) {
      if (value) api_->ReleaseValue(value);
    }
    values.clear();
  }

  std::vector<std::string> names(bool input) {
    size_t count = 0;
    OrtAllocator* allocator = nullptr;
    check(api_->GetAllocatorWithDefaultOptions(&allocator), Kind::model);
    check((input ? api_->SessionGetInputCount : api_->SessionGetOutputCount)(session_, &count), Kind::model);
    std::vector<std::string> found(count);
    for (size_t i = 0; i < count; ++i) {
      char* name = nullptr;
      check((input ? api_->SessionGetInputName : api_->SessionGetOutputName)(session_, i, allocator, &name),
            Kind::model);
      found[i] = name;
      check(api_->AllocatorFree(allocator, name), Kind::model);
    }
    auto& pointers = input ? input_pointers_ : output_pointers_;
    pointers.clear();
    // Moving the vector to its member does not move the strings' characters.
    for (const std::string& name : found) pointers.push_back(name.c_str());
    return found;
  }

  // Session itself checks the shape, and its message names the dimension.
  OrtValue* value_of(const Tensor& tensor, size_t index) {
    expect_type(tensor, index);
    OrtValue* value = nullptr;
    check(api_->CreateTensorWithDataAsOrtValue(memory_, const_cast<std::byte*>(tensor.bytes.data()),
                                               tensor.bytes.size(), tensor.shape.data(), tensor.shape.size(),
                                               type_of(tensor.dtype), &value),
          Kind::input);
    return value;
  }

  void expect_type(const Tensor& tensor, size_t index) {
    OrtTypeInfo* info = nullptr;
    check(api_->SessionGetInputTypeInfo(session_, index, &info), Kind::model);
    const OrtTensorTypeAndShapeInfo* shape = nullptr;
    OrtStatus* status = api_->CastTypeInfoToTensorInfo(info, &shape);
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    std::vector<int64_t> dims;
    if (!status && shape) {
      size_t rank = 0;
      status = api_->GetTensorElementType(shape, &type);
      if (!status) status = api_->GetDimensionsCount(shape, &rank);
      dims.resize(rank);
      if (!status) status = api_->GetDimensions(shape, dims.data(), rank);
    }
    api_->ReleaseTypeInfo(info);
    check(status, Kind::model);
    if (type != type_of(tensor.dtype) || !fits(dims, tensor.shape)) {
      throw Failure(Kind::input, "Input " + input_names_[index] + " takes " + describe(dtype_of(type), dims) +
                                     ", not " + describe(tensor.dtype, tensor.shape));
    }
  }

  // -1 stands for any length.
  static bool fits(const std::vector<int64_t>& wanted, const std::vector<int64_t>& given) {
    if (wanted.size() != given.size()) return false;
    for (size_t i = 0; i < wanted.size(); ++i) {
      if (wanted[i] >= 0 && wanted[i] != given[i]) return false;
    }
    return true;
  }

  Tensor tensor_of(OrtValue* value) {
    OrtTensorTypeAndShapeInfo* info = nullptr;
    check(api_->GetTensorTypeAndShape(value, &info), Kind::run);
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    size_t rank = 0;
    check(api_->GetTensorElementType(info, &type), Kind::run);
    check(api_->GetDimensionsCount(info, &rank), Kind::run);
    std::vector<int64_t> shape(rank);
    check(api_->GetDimensions(info, shape.data(), rank), Kind::run);
    api_->ReleaseTensorTypeAndShapeInfo(info);
    void* data = nullptr;
    check(api_->GetTensorMutableData(value, &data), Kind::run);
    Tensor tensor{dtype_of(type), shape, {}};
    tensor.bytes.resize(byte_count(tensor.dtype, shape));
    if (!tensor.bytes.empty()) std::memcpy(tensor.bytes.data(), data, tensor.bytes.size());
    return tensor;
  }

  const OrtApi* api_;
  OrtEnv* env_ = nullptr;
  OrtSessionOptions* options_ = nullptr;
  OrtSession* session_ = nullptr;
  OrtMemoryInfo* memory_ = nullptr;
  std::vector<std::string> input_names_, output_names_;
  std::vector<const char*> input_pointers_, output_pointers_;
  std::vector<OrtValue*> inputs_, outputs_;
};

}  // namespace

std::unique_ptr<Backend> make_backend() { return std::make_unique<OnnxRuntime>(); }

}  // namespace runner
