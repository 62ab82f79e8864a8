#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace runner {

enum class Dtype { float32, float64, float16, int64, int32, int16, int8, uint8, boolean };

// Both throw Failure(unsupported) for a type that the protocol does not have.
Dtype dtype_named(std::string_view name);
std::string_view name_of(Dtype dtype);
size_t size_of(Dtype dtype);

// A tensor in a file: raw little-endian values, contiguous.
struct TensorFile {
  std::string file;
  Dtype dtype;
  std::vector<int64_t> shape;
};

// A tensor in memory, contiguous.
struct Tensor {
  Dtype dtype;
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;
};

using Sample = std::vector<Tensor>;

// Throws Failure(input) if the product is too large.
size_t byte_count(Dtype dtype, const std::vector<int64_t>& shape);

// "float32[1, 3, 224, 224]"
std::string describe(Dtype dtype, const std::vector<int64_t>& shape);

// Throws Failure(input) if the file is missing or its length does not fit the shape.
Tensor read_tensor(const TensorFile& source);

}  // namespace runner
