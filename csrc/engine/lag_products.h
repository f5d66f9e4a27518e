// Of a loss at the last step: how long each lag's term of the gradient is, and how it lies to the
// total and to the rest beyond it.
//
// The term of lag T - 1 - t is da_t ⊗ (x_t, S_{t-1}, 1) over the rows of the batch. Terms are added
// to the rest from the farthest lag on, so that a small rest is as exact as a large one.
#pragma once

#include "engine/execution.h"
#include "engine/interrupt.h"
#include "engine/problem.h"

namespace bptt {

// Parameters whose terms are measured, in this order: w_ih, w_hh, b_ih, b_hh.
inline constexpr int kLayerParams = 4;

template <class T>
struct LagProducts {
  const T* y;                     // (T, B, H)
  const T* deltas;                // (deltas, T, B, H)
  const T* totals[kLayerParams];  // of each parameter; null: it is left out
  const std::int64_t* lags;       // (count), sorted, each below T
  Index count;
  T* sums[kLayerParams];  // like the totals, written: the terms of all lags added up
  double* products;  // (count, kLayerParams, kScalarProducts), written; see gemm/scalar_products.h
};

template <class T>
void lag_products(const Problem<T>& problem, const LagProducts<T>& asked,
                  const Execution& execution, Interrupt& interrupt);

}  // namespace bptt
