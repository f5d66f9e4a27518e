// The kernel table of one instruction set: every leaf, instantiated for float and double.
//
// An isa/<name>.cpp includes its simd/vec_<name>.h and then this file, and is compiled with the
// flags of its ISA.
#include "cells/elman.h"
#include "cells/gates.h"
#include "cells/gru.h"
#include "cells/lstm.h"
#include "cells/pointwise.h"
#include "contract/kernels.h"
#include "gemm/outer.h"
#include "gemm/pack.h"
#include "gemm/product.h"
#include "gemm/scalar_products.h"
#include "losses/losses.h"
#include "simd/math.h"
#include "simd/partial.h"

#define BPTT_STRING_OF(x) #x
#define BPTT_STRING(x) BPTT_STRING_OF(x)

namespace bptt::BPTT_ISA {

template <class T, Vec<T> (*F)(Vec<T>)>
void map(const T* x, T* y, Index n) {
  for (Index i = 0; i < n; i += kLanes<T>) {
    store_up_to<T>(y + i, F(load_up_to(x + i, n - i)), n - i);
  }
}

// Twelve chains hide the latency of an FMA on every CPU of today.
template <class T>
double fma_chains(Index iterations) {
  constexpr int kChains = 12;
  Vec<T> acc[kChains] = {};
  Vec<T> factor = broadcast(T(0.999)), addend = broadcast(T(0.001));
  BPTT_UNROLL for (int c = 0; c < kChains; ++c) pin(acc[c]);  // or equal chains become one
  for (Index i = 0; i < iterations; ++i) {
    pin(factor);
    pin(addend);
    BPTT_UNROLL for (int repeat = 0; repeat < 4; ++repeat) {
      BPTT_UNROLL for (int c = 0; c < kChains; ++c) acc[c] = fma(acc[c], factor, addend);
    }
  }
  BPTT_UNROLL for (int c = 0; c < kChains; ++c) pin(acc[c]);
  return 2.0 * kLanes<T> * kChains * 4 * static_cast<double>(iterations);
}

// Keeps the sums of a tile in the registers where they are.
template <class T, int M, int N>
BPTT_INLINE void pin_tile(Vec<T> (&acc)[M][N]) {
  BPTT_UNROLL for (int m = 0; m < M; ++m) {
    BPTT_UNROLL for (int v = 0; v < N; ++v) pin(acc[m][v]);
  }
}

// The tile of a product, over and over the same steps, whose operands fill a quarter of the
// first-level cache. The rows' scalars lie side by side: one pointer fewer each.
template <class T>
double fma_tile(Index iterations) {
  constexpr int kN = kProductVectors, kM = kProductRows<kN>, kSteps = 32;
  constexpr int kAtOnce = kUnrolls<T, kM, kN> ? kUnrolled : 1;
  constexpr Index kPanel = kSteps * kN * kLanes<T>;
  alignas(64) T panel[kPanel], scalars[kSteps * kM];
  for (T& p : panel) p = T(0.5);
  for (int i = 0; i < kSteps * kM; ++i) scalars[i] = i / kM % 2 ? T(0.25) : T(-0.25);
  Vec<T> acc[kM][kN] = {};
  for (Index i = 0; i < iterations; ++i) {
    const T* a = scalars;
    const T* end = panel + kPanel;
    asm("" : "+r"(end));  // or GCC counts, and has a pointer on the stack
    for (const T* p = panel; p != end; a += kAtOnce * kM) {
      BPTT_UNROLL for (int j = 0; j < kAtOnce; ++j, p += kN * kLanes<T>) {
        const auto scalar = [=](int m) { return a[j * kM + m]; };
        if constexpr (kUnrolls<T, kM, kN>) {
          pin_tile<T, kM, kN>(acc);
          update_in_place<T, kM, kN>(acc, p, scalar);
        } else {
          rank_one_update<T, kM, kN>(acc, p, scalar);
        }
      }
    }
  }
  pin_tile<T, kM, kN>(acc);
  return 2.0 * kLanes<T> * kM * kN * kSteps * static_cast<double>(iterations);
}

// The registry of cells: one line each. Their place here is their id.
// clang-format off
template <class T>
constexpr Cell<T> kCells[] = {
    elman_cell<T, Linear<T>>(),
    elman_cell<T, Tanh<T>>(),
    elman_cell<T, Relu<T>>(),
    gated_cell<T, Lstm<T>>(),
    gated_cell<T, Gru<T>>(),
};
// clang-format on

template <class T>
constexpr Kernels<T> kernels_of() {
  return {
      kLanes<T>,
      kProductVectors * kLanes<T>,
      kOuterVectors * kLanes<T>,
      pack<T>,
      product<T>,
      outer<T>,
      column_sums<T>,
      scalar_products<T>,
      kCells<T>,
      {squared_error<T>, cross_entropy<T>},
      map<T, tanh<T>>,
      map<T, sigmoid<T>>,
      map<T, exp<T>>,
      fma_chains<T>,
      fma_tile<T>,
  };
}

extern const KernelTable kTable;
const KernelTable kTable = {BPTT_STRING(BPTT_ISA), kernels_of<float>(), kernels_of<double>()};

}  // namespace bptt::BPTT_ISA
