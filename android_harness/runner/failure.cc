#include "failure.h"

namespace runner {

std::string_view name_of(Kind kind) {
  switch (kind) {
    case Kind::protocol: return "protocol";
    case Kind::usage: return "usage";
    case Kind::model: return "model";
    case Kind::hash: return "hash";
    case Kind::input: return "input";
    case Kind::memory: return "memory";
    case Kind::run: return "run";
    case Kind::io: return "io";
    case Kind::unsupported: return "unsupported";
  }
  return "run";
}

Failure failure_of(Kind kind, const std::string& reason) {
  for (const char* words : {"bad_alloc", "allocate memory", "ot enough memory", "out of memory"}) {
    if (reason.find(words) != std::string::npos) return Failure(Kind::memory, reason);
  }
  return Failure(kind, reason);
}

}  // namespace runner
