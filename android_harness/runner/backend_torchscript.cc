#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/jit/mobile/import.h>
#include <torch/csrc/jit/mobile/module.h>
#include <torch/headeronly/version.h>

#include <array>
#include <cstring>
#include <optional>

#include "backend.h"
#include "failure.h"

namespace runner {

const char* const kBackendName = "torchscript";

namespace {

struct Row {
  Dtype dtype;
  at::ScalarType type;
};

constexpr std::array<Row, 9> kTypes{{{Dtype::float32, at::kFloat},
                                     {Dtype::float64, at::kDouble},
                                     {Dtype::float16, at::kHalf},
                                     {Dtype::int64, at::kLong},
                                     {Dtype::int32, at::kInt},
                                     {Dtype::int16, at::kShort},
                                     {Dtype::int8, at::kChar},
                                     {Dtype::uint8, at::kByte},
                                     {Dtype::boolean, at::kBool}}};

Dtype dtype_of(at::ScalarType type) {
  for (const Row& row : kTypes) {
    if (row.type == type) return row.dtype;
  }
  throw Failure(Kind::unsupported, std::string("LibTorch's dtype ") + c10::toString(type));
}

void append(const c10::IValue& value, Sample& sample) {
  if (value.isTensor()) {
    const at::Tensor found = value.toTensor().contiguous();
    Tensor tensor{dtype_of(found.scalar_type()), found.sizes().vec(), std::vector<std::byte>(found.nbytes())};
    if (!tensor.bytes.empty()) std::memcpy(tensor.bytes.data(), found.const_data_ptr(), found.nbytes());
    sample.push_back(std::move(tensor));
  } else if (value.isTuple()) {
    for (const c10::IValue& element : value.toTupleRef().elements()) append(element, sample);
  } else if (value.isTensorList()) {
    for (const at::Tensor& element : value.toTensorVector()) append(element, sample);
  } else {
    throw Failure(Kind::unsupported, "The model returns a " + value.tagKind());
  }
}

// LibTorch's messages end in a stack of C++ frames, which does not help the user.
std::string first_words(const c10::Error& error) { return error.what_without_backtrace(); }

class TorchScript final : public Backend {
 public:
  std::string runtime() const override { return "torch " TORCH_VERSION; }

  void load(const std::string& model, int threads, const std::string&) override {
    if (threads) at::set_num_threads(threads);
    try {
      module_ = torch::jit::_load_for_mobile(model);
      forward_.emplace(module_.get_method("forward"));
    } catch (const c10::Error& error) {
      throw failure_of(Kind::model, first_words(error));
    }
  }

  void set_inputs(const Sample& sample) override {
    const size_t wanted = forward_->function().getSchema().arguments().size() - 1;  // without self
    if (sample.size() != wanted) {
      throw Failure(Kind::input, "The model takes " + std::to_string(wanted) + " inputs, not " +
                                     std::to_string(sample.size()));
    }
    inputs_.clear();
    for (const Tensor& tensor : sample) {
      const auto options = at::TensorOptions().dtype(kTypes[static_cast<size_t>(tensor.dtype)].type);
      inputs_.emplace_back(at::from_blob(const_cast<std::byte*>(tensor.bytes.data()), tensor.shape, options));
    }
    stack_ = inputs_;
  }

  void run() override {
    try {
      output_ = (*forward_)(std::move(stack_));
    } catch (const c10::Error& error) {
      throw failure_of(Kind::run, first_words(error));
    }
  }

  Sample outputs() override {
    Sample sample;
    append(output_, sample);
    return sample;
  }

 private:
  c10::InferenceMode inference_;
  torch::jit::mobile::Module module_;
  std::optional<torch::jit::mobile::Method> forward_;
  std::vector<c10::IValue> inputs_, stack_;
  c10::IValue output_;
};

}  // namespace

std::unique_ptr<Backend> make_backend() { return std::make_unique<TorchScript>(); }

}  // namespace runner
