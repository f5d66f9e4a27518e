// The words in which kernels speak to the chip. Tests have them on fibres (tests/cpp/fibres/), so a
// kernel includes neither: who compiles it includes one of them, after simd/one_lane.h.
//
// Written in PTX, for CUDA's headers take seconds to compile.
#pragma once

#include "cuda/format.cuh"

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
  if constexpr (sizeof(T) == 2) {
    asm volatile("st.shared::cluster.u16 [%0], %1;" ::"r"(remote), "h"(value) : "memory");
  } else if constexpr (sizeof(T) == 4) {
    const unsigned bits = __builtin_bit_cast(unsigned, value);
    asm volatile("st.shared::cluster.u32 [%0], %1;" ::"r"(remote), "r"(bits) : "memory");
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

// Four bytes of shared memory, whatever they are.
BPTT_INLINE unsigned load_word(const void* p) { return *static_cast<const unsigned*>(p); }

// To the nearest value of a format: of two that are as near the even one, but away from zero in
// tf32, for which chips before 9.0 have no other.
template <class Format>
BPTT_INLINE typename Format::Value rounded(float v) {
  typename Format::Value found;
  if constexpr (is_same<Format, Bf16>) {
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(found) : "f"(v));
  } else if constexpr (is_same<Format, F16>) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(found) : "f"(v));
  } else {
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(found) : "f"(v));
  }
  return found;
}

// Lanes of a warp that parted at a branch go on together.
BPTT_INLINE void rejoin_warp() { __syncwarp(); }

// sum += left right of a warp, which has to be there as a whole; each lane has its part of all
// three. It orders no memory.
template <class Format>
BPTT_INLINE void mma(float (&sum)[4], const unsigned (&left)[4], const unsigned (&right)[2]) {
#define BPTT_MMA(name)                                         \
  asm("mma.sync.aligned." name                                 \
      " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "        \
      "{%0, %1, %2, %3};"                                      \
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3]) \
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]))
  if constexpr (is_same<Format, Bf16>) {
    BPTT_MMA("m16n8k16.row.col.f32.bf16.bf16.f32");
  } else if constexpr (is_same<Format, F16>) {
    BPTT_MMA("m16n8k16.row.col.f32.f16.f16.f32");
  } else {
    BPTT_MMA("m16n8k8.row.col.f32.tf32.tf32.f32");
  }
#undef BPTT_MMA
}

}  // namespace bptt::BPTT_ISA
