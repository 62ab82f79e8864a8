#pragma once

#include <memory>
#include <string>

#include "tensor.h"

namespace runner {

// The interface between the measurement and a runtime. Exactly one backend_*.cc is linked into each executable:
// all three in one process would distort each other's load time and peak memory (their libraries are mapped
// and initialised before main), and ExecuTorch's and LibTorch's symbols clash.
class Backend {
 public:
  virtual ~Backend() = default;

  // "onnxruntime 1.32.0"
  virtual std::string runtime() const = 0;

  // Throws Failure(model) if the file is not a model, Failure(memory) if it does not fit into memory.
  virtual void load(const std::string& model, int threads) = 0;

  // Not timed. The sample outlives the next run(). Throws Failure(input) if it does not fit the model.
  virtual void set_inputs(const Sample& sample) = 0;

  // The only function that is timed.
  virtual void run() = 0;

  // Returns copies of the outputs of the last run().
  virtual Sample outputs() = 0;
};

// Defined by the backend that is linked in.
extern const char* const kBackendName;
std::unique_ptr<Backend> make_backend();

}  // namespace runner
