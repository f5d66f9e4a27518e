// The walk over the block of a pointwise call, shared by all cells.
#pragma once

#include "contract/kernels.h"
#include "simd/partial.h"
#include "simd/vec.h"

namespace bptt::BPTT_ISA {

template <class T>
BPTT_INLINE T* element(const Strips<T>& at, Index vector, Index row) {
  return at.data + vector * at.strip_stride + row * at.row_stride;
}

// Calls f(vector index, row, lanes that exist), and fetches the same place of the next step.
template <class T, class F>
BPTT_INLINE void for_each_vector(const Pointwise<T>& p, F&& f) {
  for (Index row = 0; row < p.rows; ++row) {
    for (Index unit = p.begin; unit < p.end; unit += kLanes<T>) {
      const Index v = unit / kLanes<T>;
      for (const auto& next : p.next_read) {
        if (next.data) prefetch_read(element(next, v, row));
      }
      if (p.next_write.data) prefetch_write(element(p.next_write, v, row));
      f(v, row, p.end - unit);
    }
  }
}

}  // namespace bptt::BPTT_ISA
