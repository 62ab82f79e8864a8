#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace runner {

// The kinds of protocol.py's ErrorKind, each with an exit code of its own. Those start above the shell's 1
// and 2 and stay below 126, from where shells speak for themselves.
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

// For runtimes that say by words alone that memory ran out.
Failure failure_of(Kind kind, const std::string& reason);

}  // namespace runner
