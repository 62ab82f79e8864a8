#include <executorch/extension/threadpool/threadpool.h>
#include <executorch/runtime/core/data_loader.h>
#include <executorch/runtime/executor/memory_manager.h>
#include <executorch/runtime/executor/method.h>
#include <executorch/runtime/core/event_tracer.h>
#include <executorch/runtime/executor/program.h>
#include <executorch/runtime/platform/platform.h>
#include <executorch/runtime/platform/runtime.h>
#ifdef SOFTWARE_VULKAN
#include <executorch/extension/data_loader/file_data_loader.h>
#endif

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>

#include "backend.h"
#include "failure.h"

namespace runner {

// "executorch", or "vulkan": the same source, linked with the Vulkan backend.
const char* const kBackendName = RUNNER_BACKEND;

namespace {

namespace et = executorch::runtime;
using executorch::aten::ScalarType;

struct Row {
  Dtype dtype;
  ScalarType type;
};

constexpr std::array<Row, 9> kTypes{{{Dtype::float32, ScalarType::Float},
                                     {Dtype::float64, ScalarType::Double},
                                     {Dtype::float16, ScalarType::Half},
                                     {Dtype::int64, ScalarType::Long},
                                     {Dtype::int32, ScalarType::Int},
                                     {Dtype::int16, ScalarType::Short},
                                     {Dtype::int8, ScalarType::Char},
                                     {Dtype::uint8, ScalarType::Byte},
                                     {Dtype::boolean, ScalarType::Bool}}};

Dtype dtype_of(ScalarType type) {
  for (const Row& row : kTypes) {
    if (row.type == type) return row.dtype;
  }
  throw Failure(Kind::unsupported, "ExecuTorch's dtype " + std::to_string(static_cast<int>(type)));
}

void check(et::Error error, Kind kind, const std::string& what) {
  if (error == et::Error::Ok) return;
  const auto found = error == et::Error::MemoryAllocationFailed ? Kind::memory : kind;
  throw Failure(found, what + ": ExecuTorch's error " + std::to_string(static_cast<int>(error)));
}

template <typename T>
T value_of(et::Result<T>&& result, Kind kind, const std::string& what) {
  check(result.error(), kind, what);
  return std::move(result.get());
}

// Maps the file like ExecuTorch's own apps; the wheel lacks the header of the loader that does so.
class MappedFile final : public et::DataLoader {
 public:
  explicit MappedFile(const std::string& path) {
    const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat info {};
    if (file < 0 || fstat(file, &info) != 0) throw Failure(Kind::model, path + ": " + std::strerror(errno));
    size_ = static_cast<size_t>(info.st_size);
    data_ = size_ ? mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0) : MAP_FAILED;
    close(file);
    if (data_ == MAP_FAILED) throw Failure(Kind::model, path + " cannot be mapped");
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile() override { munmap(data_, size_); }
  et::DataLoader* loader() { return this; }

  et::Result<et::FreeableBuffer> load(size_t offset, size_t size, const SegmentInfo&) const override {
    if (offset > size_ || size > size_ - offset) return et::Error::InvalidArgument;
    return et::FreeableBuffer(static_cast<const std::byte*>(data_) + offset, size, nullptr);
  }
  // Buffers that a model changes start as copies of what the file holds.
  et::Error load_into(size_t offset, size_t size, const SegmentInfo&, void* buffer) const override {
    if (offset > size_ || size > size_ - offset) return et::Error::InvalidArgument;
    std::memcpy(buffer, static_cast<const std::byte*>(data_) + offset, size);
    return et::Error::Ok;
  }
  et::Result<size_t> size() const override { return size_; }

 private:
  void* data_;
  size_t size_;
};

#ifdef SOFTWARE_VULKAN
// A library with another C++ standard library lays FreeableBuffer out in another way, so it reads the file itself.
class ModelFile {
 public:
  explicit ModelFile(const std::string& path)
      : loader_(value_of(executorch::extension::FileDataLoader::from(path.c_str()), Kind::model, path)) {}
  et::DataLoader* loader() { return &loader_; }

 private:
  executorch::extension::FileDataLoader loader_;
};

// Vulkan's loader would take a GPU of this machine, and Mesa would write compiled shaders. The library's own
// destructors crash outside of Android, so the process ends without them.
void use_software_vulkan() {
  const std::string driver = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "lavapipe.json";
  setenv("VK_ICD_FILENAMES", driver.c_str(), 1);
  setenv("VK_DRIVER_FILES", driver.c_str(), 1);
  setenv("MESA_SHADER_CACHE_DISABLE", "true", 1);
  on_exit([](int status, void*) { std::fflush(nullptr), _exit(status); }, nullptr);
}
#else
using ModelFile = MappedFile;
void use_software_vulkan() {}
#endif

// The runtime never frees memory: everything lives as long as the method.
class HeapAllocator final : public et::MemoryAllocator {
 public:
  HeapAllocator() : MemoryAllocator(0, nullptr) {}
  ~HeapAllocator() override { reset(); }

  void* allocate(size_t size, size_t alignment = kDefaultAlignment) override {
    const size_t rounded = (size + alignment - 1) / alignment * alignment;
    void* block = std::aligned_alloc(std::max(alignment, sizeof(void*)), std::max(rounded, sizeof(void*)));
    if (block) blocks_.push_back(block);
    return block;
  }
  void reset() override {
    for (void* block : blocks_) std::free(block);
    blocks_.clear();
  }

 private:
  std::vector<void*> blocks_;
};

// Returns the values of a tensor in C order, whatever its memory order is.
void copy_in_order(const executorch::aten::Tensor& from, Tensor& to) {
  const size_t item = size_of(to.dtype);
  const auto* data = static_cast<const std::byte*>(from.const_data_ptr());
  for (size_t flat = 0; flat * item < to.bytes.size(); ++flat) {
    size_t rest = flat, offset = 0;
    for (size_t d = to.shape.size(); d-- > 0;) {
      offset += rest % static_cast<size_t>(to.shape[d]) * static_cast<size_t>(from.strides()[d]);
      rest /= static_cast<size_t>(to.shape[d]);
    }
    std::memcpy(to.bytes.data() + flat * item, data + offset * item, item);
  }
}

constexpr std::string_view kOperatorCall = "OPERATOR_CALL";

// Receives the events that ExecuTorch's ETDump is made of, and sums them at once. A delegate reports its own
// operators by name, in the runtime's ticks; what is not delegated is known by its place in the program.
class OperatorTimes final : public et::EventTracer {
 public:
  std::vector<Operator> take() { return std::move(all_); }

  et::EventTracerEntry start_profiling(const char* name, et::ChainID, et::DebugHandle handle) override {
    et::EventTracerEntry entry{};
    const bool counted = name && name == kOperatorCall;
    entry.event_id = counted ? 1 : 0;
    entry.debug_handle = handle == et::kUnsetDebugHandle ? debug_handle_ : handle;
    entry.start_time = et_pal_current_ticks();
    return entry;
  }
  void end_profiling(et::EventTracerEntry entry) override {
    if (!entry.event_id) return;
    const std::string name = "instruction " + std::to_string(entry.debug_handle);
    add(name, "portable or optimised operator", entry.start_time, et_pal_current_ticks());
  }
  et::EventTracerEntry start_profiling_delegate(const char* name, et::DelegateDebugIntId id) override {
    et::EventTracerEntry entry{};
    entry.event_id = static_cast<int64_t>(names_.size());
    names_.emplace_back(name ? name : std::to_string(id));
    entry.start_time = et_pal_current_ticks();
    return entry;
  }
  void end_profiling_delegate(et::EventTracerEntry entry, const void*, size_t) override {
    const std::string& name = names_.at(static_cast<size_t>(entry.event_id));
    add(name, name, entry.start_time, et_pal_current_ticks());
  }
  void log_profiling_delegate(const char* name, et::DelegateDebugIntId id, et_timestamp_t start,
                              et_timestamp_t end, const void*, size_t) override {
    const std::string words = name ? name : std::to_string(id);
    add(words, words.substr(0, words.rfind(" #")), start, end);
  }

  void create_event_block(const char*) override { position_ = 0; }  // a call begins
  void track_allocation(et::AllocatorID, size_t) override {}
  et::AllocatorID track_allocator(const char*) override { return 0; }
  et::Result<bool> log_evalue(const et::EValue&, et::LoggedEValueType) override { return true; }
  et::Result<bool> log_intermediate_output_delegate(const char*, et::DelegateDebugIntId,
                                                    const executorch::aten::Tensor&) override {
    return true;
  }
  et::Result<bool> log_intermediate_output_delegate(
      const char*, et::DelegateDebugIntId, const et::ArrayRef<executorch::aten::Tensor>) override {
    return true;
  }
  et::Result<bool> log_intermediate_output_delegate(const char*, et::DelegateDebugIntId,
                                                    const int&) override {
    return true;
  }
  et::Result<bool> log_intermediate_output_delegate(const char*, et::DelegateDebugIntId,
                                                    const bool&) override {
    return true;
  }
  et::Result<bool> log_intermediate_output_delegate(const char*, et::DelegateDebugIntId,
                                                    const double&) override {
    return true;
  }
  void set_delegation_intermediate_output_filter(et::EventTracerFilterBase*) override {}

 private:
  void add(const std::string& name, const std::string& kind, et_timestamp_t start, et_timestamp_t end) {
    const auto ratio = et_pal_ticks_to_ns_multiplier();
    const auto ns = static_cast<int64_t>((end - start) * ratio.numerator / ratio.denominator);
    // Delegates number their operators apart, so that names repeat within a call; the order does not change.
    const size_t place = position_++;
    if (place >= all_.size()) all_.push_back({name, kind, {}});
    all_[place].durations_ns.push_back(ns);
  }

  std::vector<Operator> all_;
  size_t position_ = 0;
  std::vector<std::string> names_;
};

class ExecuTorch final : public Backend {
 public:
  ExecuTorch() {
    use_software_vulkan();
    et::runtime_init();
  }

  std::string runtime() const override { return "executorch " EXECUTORCH_VERSION; }

  void load(const std::string& model, int threads, const std::string& profile) override {
    if (threads && !executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(
            static_cast<uint32_t>(threads))) {
      throw Failure(Kind::unsupported, "ExecuTorch refused the number of threads");
    }
    file_.emplace(model);
    const auto kind = Kind::model;
    program_.emplace(value_of(et::Program::load(file_->loader()), kind, model + " is no ExecuTorch program"));
    const auto meta = value_of(program_->method_meta("forward"), kind, model + " has no method forward");
    plan_memory(meta);
    if (!profile.empty()) tracer_.emplace();
    method_.emplace(value_of(program_->load_method("forward", &*manager_, tracer_ ? &*tracer_ : nullptr), kind, model + " cannot be loaded"));
  }

  void set_inputs(const Sample& sample) override {
    const size_t wanted = method_->inputs_size();
    if (sample.size() != wanted) {
      throw Failure(Kind::input, "The model takes " + std::to_string(wanted) + " inputs, not " +
                                     std::to_string(sample.size()));
    }
    for (size_t i = 0; i < wanted; ++i) set_input(sample[i], i);
  }

  void run() override { check(method_->execute(), Kind::run, "The model did not run"); }

  Sample outputs() override {
    Sample sample;
    for (size_t i = 0; i < method_->outputs_size(); ++i) {
      const et::EValue& value = method_->get_output(i);
      if (!value.isTensor()) throw Failure(Kind::unsupported, "The model returns something other than tensors");
      const executorch::aten::Tensor& found = value.toTensor();
      Tensor tensor{dtype_of(found.scalar_type()), {found.sizes().begin(), found.sizes().end()}, {}};
      tensor.bytes.resize(found.nbytes());
      copy_in_order(found, tensor);
      sample.push_back(std::move(tensor));
    }
    return sample;
  }

  std::vector<Operator> operators() override { return tracer_->take(); }

 private:
  void plan_memory(const et::MethodMeta& meta) {
    for (size_t i = 0; i < meta.num_memory_planned_buffers(); ++i) {
      const auto size = value_of(meta.memory_planned_buffer_size(i), Kind::model, "The memory plan");
      buffers_.emplace_back(static_cast<size_t>(size));
      spans_.emplace_back(buffers_.back().data(), buffers_.back().size());
    }
    planned_.emplace(et::Span<et::Span<uint8_t>>(spans_.data(), spans_.size()));
    manager_.emplace(&allocator_, &*planned_, &temporary_);
  }

  void set_input(const Tensor& tensor, size_t index) {
    const std::string what =
        "Input " + std::to_string(index) + " cannot be " + describe(tensor.dtype, tensor.shape);
    const size_t rank = tensor.shape.size();
    std::vector<executorch::aten::SizesType> sizes(tensor.shape.begin(), tensor.shape.end());
    std::vector<executorch::aten::DimOrderType> order(rank);
    std::vector<executorch::aten::StridesType> strides(rank, 1);
    for (size_t d = 0; d < rank; ++d) order[d] = static_cast<executorch::aten::DimOrderType>(d);
    for (size_t d = rank; d-- > 1;) strides[d - 1] = strides[d] * sizes[d];
    executorch::aten::TensorImpl impl(kTypes[static_cast<size_t>(tensor.dtype)].type,
                                      static_cast<ssize_t>(rank), sizes.data(),
                                      const_cast<std::byte*>(tensor.bytes.data()), order.data(),
                                      strides.data());
    // set_input copies the values or keeps a pointer to them, but keeps no pointer to sizes and strides.
    check(method_->set_input(et::EValue(executorch::aten::Tensor(&impl)), index), Kind::input, what);
  }

  std::optional<ModelFile> file_;
  std::optional<et::Program> program_;
  HeapAllocator allocator_, temporary_;
  std::vector<std::vector<uint8_t>> buffers_;
  std::vector<et::Span<uint8_t>> spans_;
  std::optional<et::HierarchicalAllocator> planned_;
  std::optional<et::MemoryManager> manager_;
  std::optional<OperatorTimes> tracer_;
  std::optional<et::Method> method_;  // last, so that it is destroyed before what it points to
};

}  // namespace

std::unique_ptr<Backend> make_backend() { return std::make_unique<ExecuTorch>(); }

}  // namespace runner
