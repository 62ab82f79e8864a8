#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace runner {

// FIPS 180-4. The NDK has no OpenSSL, and a single function does not justify adding it.
class Sha256 {
 public:
  void update(const uint8_t* data, size_t size);
  std::string hex_digest();

 private:
  void block(const uint8_t* data);

  std::array<uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<uint8_t, 64> pending_{};
  uint64_t size_ = 0;
};

// Reads in small pieces, so that hashing does not add the model to the peak memory.
std::string sha256_of_file(const std::string& path);

}  // namespace runner
