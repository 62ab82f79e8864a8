#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace runner {

// The kinds of protocol.py's ErrorKind, each with its own exit code. The codes are above the shell's 1
// and 2 and below 126, from which shells use them.
enum class Kind { protocol = 20, usage, model, hash, input, memory, run, io, unsupported };

std::string_view name_of(Kind kind);

class Failure : public std::runtime_error {
 public:
  Failure(Kind kind, const std::string& reason) : std::runtime_error(reason), kind_(kind) {}
  Kind kind() const { return kind_; }
  int exit_code() const { return static_cast<int>(kind_); }

 private:
  Kind kind_;
};

// For runtimes that report a lack of memory only by a message.
Failure failure_of(Kind kind, const std::string& reason);

}  // namespace runner
