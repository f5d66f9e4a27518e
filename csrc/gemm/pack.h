// Packing: a matrix copied once into panels that the micro-kernels read front to back.
#pragma once

#include "contract/kernels.h"
#include "simd/vec.h"

namespace bptt::BPTT_ISA {

// Columns of the panel that begins at column `begin`: `width`, or what is left in whole vectors.
template <class T>
BPTT_INLINE Index panel_width(Index columns, Index begin, Index width) {
  const Index left = (columns - begin + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
  return left < width ? left : width;
}

// Fills one panel of `w` columns, of which `filled` exist.
template <class T>
void pack_panel(const Pack<T>& p, const T* source, T* panel, Index w, Index filled) {
  if (p.stride_n == 1) {
    for (Index k = 0; k < p.rows; ++k, source += p.stride_k, panel += w) {
      for (Index j = 0; j < filled; ++j) panel[j] = source[j];
      for (Index j = filled; j < w; ++j) panel[j] = T(0);
    }
    return;
  }
  // A cache line of each column at a time: the rows of the panel are written while they are near.
  constexpr Index kRowsAtOnce = 64 / sizeof(T);
  for (Index first = 0; first < p.rows; first += kRowsAtOnce) {
    const Index last = first + kRowsAtOnce < p.rows ? first + kRowsAtOnce : p.rows;
    for (Index j = 0; j < w; ++j) {
      const T* column = source + j * p.stride_n;
      for (Index k = first; k < last; ++k) {
        panel[k * w + j] = j < filled ? column[k * p.stride_k] : T(0);
      }
    }
  }
}

template <class T>
void pack(const Pack<T>& p) {
  for (Index begin = p.begin; begin < p.end; begin += p.width) {
    const Index w = panel_width<T>(p.columns, begin, p.width);
    const Index filled = p.columns - begin < w ? p.columns - begin : w;
    T* panel = p.panels + begin * p.panel_rows + p.row_offset * w;
    pack_panel(p, p.source + begin * p.stride_n, panel, w, filled);
  }
}

}  // namespace bptt::BPTT_ISA
