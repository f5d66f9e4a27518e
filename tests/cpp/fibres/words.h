// The words of csrc/cuda/words.cuh on a CPU: every thread of a launch is a fibre (fibres.cpp).
//
// A word that orders memory knows where it stands, so that a test can take each away in turn.
#pragma once

#include "fibres/fibres.h"
#include "simd/one_lane.h"

namespace bptt::BPTT_ISA {

inline int thread_index() { return fibres::thread_index(); }
inline int threads_of_block() { return fibres::threads_of_block(); }
inline int block_index() { return fibres::block_index(); }
inline int blocks_of_grid() { return fibres::blocks_of_grid(); }
inline unsigned char* shared_memory() { return fibres::shared_memory(); }

inline void block_barrier(int line = __builtin_LINE(), const char* file = __builtin_FILE()) {
  fibres::reach_block_barrier({"block_barrier", file, line});
}
inline void cluster_barrier(int line = __builtin_LINE(), const char* file = __builtin_FILE()) {
  fibres::reach_cluster_barrier({"cluster_barrier", file, line});
}

template <class T>
inline void store_to_peer(T* mine, int rank, T value) {
  const auto offset = reinterpret_cast<unsigned char*>(mine) - fibres::shared_memory();
  *reinterpret_cast<T*>(fibres::shared_memory_of_peer(rank) + offset) = value;
}

inline void signal(unsigned* counter, int line = __builtin_LINE(),
                   const char* file = __builtin_FILE()) {
  if (fibres::is_there({"signal's release", file, line})) {
    __atomic_fetch_add(counter, 1u, __ATOMIC_RELEASE);
  } else {
    __atomic_fetch_add(counter, 1u, __ATOMIC_RELAXED);
  }
}
inline void await(const unsigned* counter, unsigned value, int line = __builtin_LINE(),
                  const char* file = __builtin_FILE()) {
  if (!fibres::is_there({"await", file, line})) return;
  while (static_cast<int>(__atomic_load_n(counter, __ATOMIC_ACQUIRE) - value) < 0) {
    fibres::wait_for(counter, value);
  }
}

template <class T>
inline T load_l2(const T* p) {
  return *p;
}

}  // namespace bptt::BPTT_ISA
