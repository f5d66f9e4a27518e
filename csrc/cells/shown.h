// S_t once more, where the caller has its rows.
#pragma once

#include "contract/kernels.h"
#include "simd/partial.h"
#include "simd/vec.h"

namespace bptt::BPTT_ISA {

// Units [begin, end) of a row of S_t, once more to where it is shown.
template <class T>
BPTT_INLINE void show(const Shown<T>& shown, Index row, const T* from, Index begin, Index end) {
  const auto at = [&](const Index* rows) {
    return shown.data + rows[row] * shown.row_stride + begin;
  };
  T* to = at(shown.rows);
  T* next = at(shown.next_rows ? shown.next_rows : shown.rows);
  for (Index left = end - begin; left > 0; left -= kLanes<T>) {
    prefetch(next);
    store_up_to<T>(to, load_up_to(from, left), left);
    from += kLanes<T>, to += kLanes<T>, next += kLanes<T>;
  }
}

}  // namespace bptt::BPTT_ISA
