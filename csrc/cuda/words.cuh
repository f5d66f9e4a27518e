// The words in which kernels speak to the chip. Tests have them on fibres (tests/cpp/fibres/), so a
// kernel includes neither: who compiles it includes one of them, after simd/one_lane.h.
//
// Written in PTX, for CUDA's headers take seconds to compile.
#pragma once

#include "simd/one_lane.h"

namespace bptt::BPTT_ISA {

BPTT_INLINE int thread_index() { return static_cast<int>(threadIdx.x); }
BPTT_INLINE int threads_of_block() { return static_cast<int>(blockDim.x); }
BPTT_INLINE int block_index() { return static_cast<int>(blockIdx.x); }
BPTT_INLINE int blocks_of_grid() { return static_cast<int>(gridDim.x); }

// Of the block, as many bytes as the launch says, aligned to 16.
BPTT_INLINE unsigned char* shared_memory() {
  extern __shared__ __align__(16) unsigned char bytes[];
  return bytes;
}

BPTT_INLINE void block_barrier() { __syncthreads(); }

// Among the blocks of a cluster, that is from compute capability 9.0 on. Not the aligned form: it
// may not stand behind a branch in which threads part.
BPTT_INLINE void cluster_barrier() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
#else
  __trap();
#endif
}

// To the place in the shared memory of block `rank` of the cluster that `mine` has in one's own.
template <class T>
BPTT_INLINE void store_to_peer(T* mine, int rank, T value) {
#if __CUDA_ARCH__ >= 900
  unsigned local = static_cast<unsigned>(__cvta_generic_to_shared(mine)), remote;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(local), "r"(rank));
  if constexpr (sizeof(T) == 4) {
    asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(remote), "f"(value) : "memory");
  } else {
    asm volatile("st.shared::cluster.f64 [%0], %1;" ::"r"(remote), "d"(value) : "memory");
  }
#else
  __trap();
#endif
}

// Among blocks that run at the same time: what was written before `signal` can be read, by
// `load_l2`, after `await`. Counters may wrap around.
BPTT_INLINE void signal(unsigned* counter) {
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
}
BPTT_INLINE void await(const unsigned* counter, unsigned value) {
  unsigned seen;
  do {
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
  } while (static_cast<int>(seen - value) < 0);
}

// From the second-level cache: the first level may have what was there before.
BPTT_INLINE float load_l2(const float* p) { return __ldcg(p); }
BPTT_INLINE double load_l2(const double* p) { return __ldcg(p); }

}  // namespace bptt::BPTT_ISA
