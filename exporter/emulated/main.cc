// Runs one model on samples and writes its outputs: `runner MODEL INPUTS OUTPUTS`. Nothing is timed.
// exporter/emulated/run.py describes both files, and starts this under QEMU.
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <string>

#include "backend.h"
#include "failure.h"

namespace runner {
namespace {

constexpr uint32_t kMost = 1 << 20;

template <typename Number>
Number read_number(std::istream& stream) {
  Number number{};
  if (!stream.read(reinterpret_cast<char*>(&number), sizeof number)) {
    throw Failure(Kind::protocol, "The inputs are cut short");
  }
  return number;
}

uint32_t read_count(std::istream& stream) {
  const auto count = read_number<uint32_t>(stream);
  if (count > kMost) throw Failure(Kind::protocol, "The inputs hold too many items");
  return count;
}

Tensor read_tensor_of(std::istream& stream) {
  Tensor tensor{static_cast<Dtype>(read_count(stream)), {}, {}};
  tensor.shape.resize(read_count(stream));
  for (int64_t& length : tensor.shape) length = read_number<int64_t>(stream);
  tensor.bytes.resize(byte_count(tensor.dtype, tensor.shape));
  if (!stream.read(reinterpret_cast<char*>(tensor.bytes.data()),
                   static_cast<std::streamsize>(tensor.bytes.size()))) {
    throw Failure(Kind::protocol, "The inputs are cut short");
  }
  return tensor;
}

template <typename Number>
void write_number(std::ostream& stream, Number number) {
  stream.write(reinterpret_cast<const char*>(&number), sizeof number);
}

void write_sample(std::ostream& stream, const Sample& sample) {
  write_number(stream, static_cast<uint32_t>(sample.size()));
  for (const Tensor& tensor : sample) {
    write_number(stream, static_cast<uint32_t>(tensor.dtype));
    write_number(stream, static_cast<uint32_t>(tensor.shape.size()));
    for (int64_t length : tensor.shape) write_number(stream, length);
    stream.write(reinterpret_cast<const char*>(tensor.bytes.data()),
                 static_cast<std::streamsize>(tensor.bytes.size()));
  }
}

// A hint that processors ignore: exporter/estimate/plugin.c counts what is executed between two of them.
void mark() { asm volatile("hint #100" ::: "memory"); }

void run_all(const std::string& model, const std::string& inputs, const std::string& outputs) {
  std::ifstream from(inputs, std::ios::binary);
  std::ofstream to(outputs, std::ios::binary);
  const auto backend = make_backend();
  backend->load(model, 1);
  const uint32_t samples = read_count(from);
  std::printf("%s\n", backend->runtime().c_str());
  for (uint32_t i = 0; i < samples; ++i) {
    Sample sample(read_count(from));
    for (Tensor& tensor : sample) tensor = read_tensor_of(from);
    backend->set_inputs(sample);
    mark();
    backend->run();
    mark();
    write_sample(to, backend->outputs());
  }
  if (!to.flush()) throw Failure(Kind::io, "The outputs cannot be written");
}

}  // namespace
}  // namespace runner

int main(int count, char** values) {
  try {
    if (count != 4) throw runner::Failure(runner::Kind::usage, "usage: runner MODEL INPUTS OUTPUTS");
    runner::run_all(values[1], values[2], values[3]);
    std::fflush(stdout);
    return 0;
  } catch (const runner::Failure& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return failure.exit_code();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
