// Runs a .pte in ExecuTorch's library for Android, through functions that Python's ctypes can call.
//
// The library was compiled with another C++ standard library. Only what both lay out alike may pass between
// the two: so the library reads the file itself.
#include <executorch/extension/data_loader/file_data_loader.h>
#include <executorch/runtime/executor/memory_manager.h>
#include <executorch/runtime/executor/method.h>
#include <executorch/runtime/executor/program.h>
#include <executorch/runtime/platform/runtime.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

namespace et = executorch::runtime;

void check(et::Error error, const char* action) {
  if (error == et::Error::Ok) return;
  throw std::runtime_error(std::string(action) + ": ExecuTorch's error " +
                           std::to_string(static_cast<int>(error)));
}

// The runtime never frees memory: everything lives as long as the process.
class HeapAllocator final : public et::MemoryAllocator {
 public:
  HeapAllocator() : MemoryAllocator(0, nullptr) {}
  void* allocate(size_t size, size_t alignment = kDefaultAlignment) override {
    const size_t rounded = (size + alignment - 1) / alignment * alignment;
    return std::aligned_alloc(std::max(alignment, sizeof(void*)), std::max(rounded, sizeof(void*)));
  }
  void reset() override {}
};

struct Model {
  std::optional<et::Result<executorch::extension::FileDataLoader>> file;
  std::optional<et::Result<et::Program>> program;
  std::vector<std::vector<uint8_t>> buffers;
  std::vector<et::Span<uint8_t>> spans;
  std::optional<et::HierarchicalAllocator> planned;
  std::optional<et::MemoryManager> manager;
  std::optional<et::Result<et::Method>> method;
  HeapAllocator allocator, temporary;
};

// Never destroyed: the library's own destructors crash outside of Android.
Model& model = *new Model;
std::string problem;

template <typename Work>
int guarded(Work work) {
  try {
    work();
    return 0;
  } catch (const std::exception& error) {
    problem = error.what();
    return 1;
  }
}

void load(const char* path) {
  et::runtime_init();
  model.file.emplace(executorch::extension::FileDataLoader::from(path));
  check(model.file->error(), "the file cannot be opened");
  model.program.emplace(et::Program::load(&model.file->get()));
  check(model.program->error(), "it is no ExecuTorch program");
  const auto meta = model.program->get().method_meta("forward");
  check(meta.error(), "it has no method forward");
  for (size_t i = 0; i < meta->num_memory_planned_buffers(); ++i) {
    const auto size = meta->memory_planned_buffer_size(i);
    check(size.error(), "the memory plan cannot be read");
    model.buffers.emplace_back(static_cast<size_t>(size.get()));
    model.spans.emplace_back(model.buffers.back().data(), model.buffers.back().size());
  }
  model.planned.emplace(et::Span<et::Span<uint8_t>>(model.spans.data(), model.spans.size()));
  model.manager.emplace(&model.allocator, &*model.planned, &model.temporary);
  model.method.emplace(model.program->get().load_method("forward", &*model.manager));
  check(model.method->error(), "it cannot be loaded");
}

void set_input(size_t index, int dtype, size_t rank, const int64_t* shape, void* data) {
  std::vector<executorch::aten::SizesType> sizes(shape, shape + rank);
  std::vector<executorch::aten::DimOrderType> order(rank);
  std::vector<executorch::aten::StridesType> strides(rank, 1);
  for (size_t d = 0; d < rank; ++d) order[d] = static_cast<executorch::aten::DimOrderType>(d);
  for (size_t d = rank; d-- > 1;) strides[d - 1] = strides[d] * sizes[d];
  executorch::aten::TensorImpl impl(static_cast<executorch::aten::ScalarType>(dtype),
                                    static_cast<ssize_t>(rank), sizes.data(), data, order.data(),
                                    strides.data());
  check(model.method->get().set_input(et::EValue(executorch::aten::Tensor(&impl)), index),
        "it does not take the input");
}

const executorch::aten::Tensor& output(size_t index) {
  const et::EValue& value = model.method->get().get_output(index);
  if (!value.isTensor()) throw std::runtime_error("it returns something other than tensors");
  return value.toTensor();
}

}  // namespace

extern "C" {

const char* vulkan_problem() { return problem.c_str(); }
int vulkan_load(const char* path) { return guarded([&] { load(path); }); }
int vulkan_set_input(size_t index, int dtype, size_t rank, const int64_t* shape, void* data) {
  return guarded([&] { set_input(index, dtype, rank, shape, data); });
}
int vulkan_run() {
  return guarded([] { check(model.method->get().execute(), "it does not run"); });
}
size_t vulkan_outputs() { return model.method->get().outputs_size(); }
int vulkan_output(size_t index, int* dtype, size_t* rank, int64_t* shape, const void** data, size_t* bytes) {
  return guarded([&] {
    const auto& tensor = output(index);
    *dtype = static_cast<int>(tensor.scalar_type());
    *rank = std::min<size_t>(static_cast<size_t>(tensor.dim()), *rank);
    for (size_t d = 0; d < *rank; ++d) shape[d] = tensor.size(static_cast<ssize_t>(d));
    *data = tensor.const_data_ptr();
    *bytes = tensor.nbytes();
  });
}
}
