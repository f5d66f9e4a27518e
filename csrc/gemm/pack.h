// Packing: a matrix copied once into panels that the micro-kernels read front to back.
#pragma once

#include "contract/kernels.h"
#include "simd/partial.h"
#include "simd/transpose.h"
#include "simd/vec.h"

namespace bptt::BPTT_ISA {

// Columns of the panel that begins at column `begin`: `width`, or what is left in whole vectors.
template <class T>
BPTT_INLINE Index panel_width(Index columns, Index begin, Index width) {
  const Index left = (columns - begin + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
  return left < width ? left : width;
}

// A panel of `w` columns, `filled` of which exist, from rows that lie as the panel's do.
template <class T>
void copy_panel(const Pack<T>& p, const T* source, T* panel, Index w, Index filled) {
  for (Index k = 0; k < p.rows; ++k, source += p.stride_k, panel += w) {
    for (Index j = 0; j < w; j += kLanes<T>) store(panel + j, load_up_to(source + j, filled - j));
  }
}

// The same from a matrix whose columns are contiguous, in square tiles of vectors.
template <class T>
void transpose_panel(const Pack<T>& p, const T* source, T* panel, Index w, Index filled) {
  constexpr int kL = kLanes<T>;
  for (Index j = 0; j < w; j += kL) {
    for (Index k = 0; k < p.rows; k += kL) {
      const Index rows = p.rows - k < kL ? p.rows - k : kL;
      Vec<T> tile[kL];
      BPTT_UNROLL for (int i = 0; i < kL; ++i) {
        tile[i] = j + i < filled ? load_up_to(source + (j + i) * p.stride_n + k, rows) : Vec<T>{};
      }
      transpose<T>(tile);
      BPTT_UNROLL for (int i = 0; i < kL; ++i) {
        if (i < rows) store(panel + (k + i) * w + j, tile[i]);
      }
    }
  }
}

template <class T>
void pack(const Pack<T>& p) {
  for (Index begin = 0; begin < p.columns; begin += p.width) {
    const Index w = panel_width<T>(p.columns, begin, p.width);
    const Index filled = p.columns - begin < w ? p.columns - begin : w;
    T* panel = p.panels + begin * p.panel_rows + p.row_offset * w;
    const T* source = p.source + begin * p.stride_n;
    p.stride_n == 1 ? copy_panel(p, source, panel, w, filled)
                    : transpose_panel(p, source, panel, w, filled);
  }
}

}  // namespace bptt::BPTT_ISA
