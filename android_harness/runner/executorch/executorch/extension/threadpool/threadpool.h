// The part of ExecuTorch's executorch/extension/threadpool/threadpool.h that backend_executorch.cc calls. The
// wheels' libraries have the functions; their own header includes one that the wheels lack.
#pragma once

#include <cstdint>

namespace executorch::extension::threadpool {

class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(uint32_t threads);
};

ThreadPool* get_threadpool();

}  // namespace executorch::extension::threadpool
