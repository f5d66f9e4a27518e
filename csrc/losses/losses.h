// Losses of a row of outputs O and their gradients (contract: `LossRows`):
//
//     squared_error   l = 1/2 sum_o (Y_o - O_o)^2          dl/dO = O - Y
//     cross_entropy   l = log sum_o exp(O_o) - O_id        dl/dO = softmax(O) - onehot(id)
//
// Sums over outputs run upwards one by one: the same bits for every vector length. A weight of 0
// selects, it does not multiply: of such a row neither O nor the target counts, whatever they hold.
#pragma once

#include "contract/kernels.h"
#include "simd/math.h"
#include "simd/partial.h"
#include "simd/vec.h"

namespace bptt::BPTT_ISA {

template <class T>
BPTT_INLINE void scale_row(T* o, Index outputs, T weight, T scale) {
  for (Index j = 0; j < outputs; ++j) o[j] = o[j] * weight * scale;
}

// The weight of a row. One of weight 0 is done with here: its loss and its gradient are 0.
template <class T>
BPTT_INLINE T weight_of(const LossRows<T>& p, Index r) {
  const T weight = p.weights ? p.weights[r] : T(1);
  if (weight == T(0)) {
    p.losses[r] = 0;
    for (Index j = 0; j < p.outputs; ++j) p.o[r * p.o_stride + j] = T(0);
  }
  return weight;
}

template <class T>
void squared_error(const LossRows<T>& p) {
  for (Index r = 0; r < p.rows; ++r) {
    const T weight = weight_of(p, r);
    if (weight == T(0)) continue;
    T* o = p.o + r * p.o_stride;
    const T* y = p.target + r * p.outputs;
    double sum = 0;
    for (Index j = 0; j < p.outputs; ++j) {
      o[j] -= y[j];
      sum += static_cast<double>(o[j]) * static_cast<double>(o[j]);
    }
    p.losses[r] = sum / 2 * static_cast<double>(weight);
    scale_row(o, p.outputs, weight, p.scale);
  }
}

// o -> exp(o), in place.
template <class T>
BPTT_INLINE void exp_row(T* o, Index n) {
  for (Index j = 0; j < n; j += kLanes<T>) {
    store_up_to<T>(o + j, exp<T>(load_up_to(o + j, n - j)), n - j);
  }
}

template <class T>
void cross_entropy(const LossRows<T>& p) {
  for (Index r = 0; r < p.rows; ++r) {
    const T weight = weight_of(p, r);
    if (weight == T(0)) continue;
    T* o = p.o + r * p.o_stride;
    T largest = o[0];
    for (Index j = 1; j < p.outputs; ++j) {
      // A NaN wins the comparison and stays, as in NumPy's max.
      if (!(o[j] <= largest) && largest == largest) largest = o[j];
    }
    for (Index j = 0; j < p.outputs; ++j) o[j] -= largest;
    // Read once: the caller may change its ids meanwhile, and then gets NaN.
    const std::int64_t id = static_cast<const volatile std::int64_t*>(p.ids)[r];
    const bool known = id >= 0 && id < p.outputs;
    const T at_id = known ? o[id] : static_cast<T>(__builtin_nan(""));
    exp_row(o, p.outputs);
    T total = 0;
    for (Index j = 0; j < p.outputs; ++j) total += o[j];
    for (Index j = 0; j < p.outputs; ++j) o[j] /= total;
    if (known) o[id] -= T(1);
    const double loss = __builtin_log(static_cast<double>(total)) - static_cast<double>(at_id);
    p.losses[r] = loss * static_cast<double>(weight);
    scale_row(o, p.outputs, weight, p.scale);
  }
}

}  // namespace bptt::BPTT_ISA
