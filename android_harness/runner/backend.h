#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "failure.h"
#include "tensor.h"

namespace runner {

extern const char* const kBackendName;

// An operator as the runtime executed it, with the duration of each of its executions.
struct Operator {
  std::string name;  // "node_Conv_53"; the runtime's own
  std::string kind;  // "Conv"
  std::vector<int64_t> durations_ns;
};

// The interface between the measurement and a runtime. Exactly one backend_*.cc is linked into each executable:
// all three in one process would distort each other's load time and peak memory (their libraries are mapped
// and initialised before main), and ExecuTorch's and LibTorch's symbols clash.
class Backend {
 public:
  virtual ~Backend() = default;

  // "onnxruntime 1.32.0"
  virtual std::string runtime() const = 0;

  // `threads` 0 leaves their number to the runtime. A `profile`, a path to begin file names with, makes the
  // runtime time its operators, which slows calls down; empty for none. Throws Failure(model) if the file is
  // not a model, Failure(memory) if it does not fit into memory.
  virtual void load(const std::string& model, int threads, const std::string& profile) = 0;

  // Not timed. The sample outlives the next run(). Throws Failure(input) if it does not fit the model.
  virtual void set_inputs(const Sample& sample) = 0;

  // The only function that is timed.
  virtual void run() = 0;

  // Returns copies of the outputs of the last run().
  virtual Sample outputs() = 0;

  // Ends the profile, and returns the operators in the order of their first execution.
  virtual std::vector<Operator> operators() {
    throw Failure(Kind::unsupported, std::string(kBackendName) + " does not time its operators");
  }
};

// Defined by the backend that is linked in.
std::unique_ptr<Backend> make_backend();

}  // namespace runner
