// The walk over the block of an Elman cell's step.
#pragma once

#include "cells/shown.h"
#include "contract/kernels.h"
#include "simd/partial.h"
#include "simd/vec.h"

namespace bptt::BPTT_ISA {

// Goes along one row of a matrix, vector by vector.
template <class T>
struct Cursor {
  T* at;
  Index strip_stride;

  BPTT_INLINE Cursor(const Strips<T>& m, Index vector, Index row)
      : at(m.data + vector * m.strip_stride + row * m.row_stride), strip_stride(m.strip_stride) {}
  BPTT_INLINE void advance() { at += strip_stride; }
};

// Calls f(value, y, lanes that exist) for every vector, and fetches the same place of the next
// step.
template <class T, class F>
BPTT_INLINE void for_each_vector(const Pointwise<T>& p, F&& f) {
  const Index first = p.begin / kLanes<T>;
  // Where there is nothing to fetch, what is here already: no branch in the loop.
  const Strips<const T> here{p.values.data, p.values.strip_stride, p.values.row_stride};
  const Strips<const T> y = p.y.data ? p.y : here;
  const Strips<const T> next_y = p.next_y.data ? p.next_y : here;
  const Strips<const T> next_ds = p.next_ds.data ? p.next_ds : here;
  const Strips<T> next_values = p.next_values.data ? p.next_values : p.values;
  for (Index row = 0; row < p.rows; ++row) {
    Cursor<T> value(p.values, first, row), next_value(next_values, first, row);
    Cursor<const T> s(y, first, row), next_s(next_y, first, row), next_d(next_ds, first, row);
    for (Index left = p.end - p.begin; left > 0; left -= kLanes<T>) {
      prefetch(next_value.at);
      prefetch(next_s.at);
      prefetch(next_d.at);
      f(value.at, s.at, left);
      value.advance(), next_value.advance(), s.advance(), next_s.advance(), next_d.advance();
    }
    if (p.shown.data) show(p.shown, row, Cursor<T>(p.values, first, row).at, p.begin, p.end);
  }
}

// a_t -> S_t
template <class T, class Cell>
void elman_forward(const Pointwise<T>& p) {
  for_each_vector(p, [](T* value, const T*, Index exist) {
    if constexpr (Cell::kIdentity) return;
    store_up_to<T>(value, Cell::activate(load_up_to(value, exist)), exist);
  });
}

// dS_t -> da_t
template <class T, class Cell>
void elman_backward(const Pointwise<T>& p) {
  for_each_vector(p, [](T* value, const T* y, Index exist) {
    if constexpr (Cell::kIdentity) return;
    store_up_to<T>(value, Cell::chain(load_up_to(value, exist), load_up_to(y, exist)), exist);
  });
}

template <class T, class Cell>
constexpr bptt::Cell<T> elman_cell() {
  return {Cell::kName, kElmanShape, elman_forward<T, Cell>, elman_backward<T, Cell>,
          nullptr,     nullptr};
}

}  // namespace bptt::BPTT_ISA
