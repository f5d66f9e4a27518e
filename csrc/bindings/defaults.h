// How calls are computed that are made without Python: what bptt.set_num_threads and
// bptt.set_flush_subnormals have set last.
#pragma once

#include <atomic>

#include "engine/execution.h"

namespace bptt {

inline std::atomic<int> default_threads{1};
inline std::atomic<bool> default_flush_subnormals{true};

inline Execution default_execution() {
  return {default_threads.load(std::memory_order_relaxed),
          default_flush_subnormals.load(std::memory_order_relaxed)};
}

}  // namespace bptt
