#include "tensor.h"

#include <array>
#include <filesystem>
#include <fstream>

#include "failure.h"

namespace runner {
namespace {

struct Row {
  Dtype dtype;
  std::string_view name;
  size_t size;
};

constexpr std::array<Row, 9> kDtypes{{{Dtype::float32, "float32", 4},
                                      {Dtype::float64, "float64", 8},
                                      {Dtype::float16, "float16", 2},
                                      {Dtype::int64, "int64", 8},
                                      {Dtype::int32, "int32", 4},
                                      {Dtype::int16, "int16", 2},
                                      {Dtype::int8, "int8", 1},
                                      {Dtype::uint8, "uint8", 1},
                                      {Dtype::boolean, "bool", 1}}};

constexpr size_t kMostBytes = size_t{1} << 36;

const Row& row_of(Dtype dtype) { return kDtypes[static_cast<size_t>(dtype)]; }

}  // namespace

Dtype dtype_named(std::string_view name) {
  for (const Row& row : kDtypes) {
    if (row.name == name) return row.dtype;
  }
  throw Failure(Kind::unsupported, "No such dtype: " + std::string(name));
}

std::string_view name_of(Dtype dtype) { return row_of(dtype).name; }

size_t size_of(Dtype dtype) { return row_of(dtype).size; }

size_t byte_count(Dtype dtype, const std::vector<int64_t>& shape) {
  size_t bytes = size_of(dtype);
  for (int64_t length : shape) {
    if (length == 0) return 0;
    if (length < 0 || bytes > kMostBytes / static_cast<size_t>(length)) {
      throw Failure(Kind::input, "Not a shape: " + describe(dtype, shape));
    }
    bytes *= static_cast<size_t>(length);
  }
  return bytes;
}

std::string describe(Dtype dtype, const std::vector<int64_t>& shape) {
  std::string text(name_of(dtype));
  text += '[';
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + ']';
}

Tensor read_tensor(const TensorFile& source) {
  const size_t expected = byte_count(source.dtype, source.shape);
  std::error_code error;
  const auto found = std::filesystem::file_size(source.file, error);
  if (error) throw Failure(Kind::input, source.file + ": " + error.message());
  if (found != expected) {
    throw Failure(Kind::input, source.file + " holds " + std::to_string(found) + " bytes; " +
                                   describe(source.dtype, source.shape) + " takes " +
                                   std::to_string(expected));
  }
  Tensor tensor{source.dtype, source.shape, std::vector<std::byte>(expected)};
  std::ifstream stream(source.file, std::ios::binary);
  if (!stream.read(reinterpret_cast<char*>(tensor.bytes.data()), static_cast<std::streamsize>(expected))) {
    throw Failure(Kind::input, source.file + " could not be read");
  }
  return tensor;
}

}  // namespace runner
