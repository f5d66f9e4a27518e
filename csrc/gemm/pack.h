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

// A panel of `w` columns from `begin` on, from rows that lie as the panel's do.
template <class T>
void copy_panel(const Pack<T>& p, Index begin, T* panel, Index w) {
  const T* source = p.source + begin;
  const Index filled = p.columns - begin < w ? p.columns - begin : w;
  for (Index k = 0; k < p.rows; ++k, source += p.stride_k, panel += w) {
    for (Index j = 0; j < w; j += kLanes<T>) store(panel + j, load_up_to(source + j, filled - j));
  }
}

// The same from matrices whose columns are contiguous, in square tiles of vectors.
template <class T>
void transpose_panel(const Pack<T>& p, Index begin, T* panel, Index w) {
  constexpr int kL = kLanes<T>;
  for (Index j = 0; j < w; j += kL) {
    const Index vector = (begin + j) / kL, n = vector / p.gates * kL;
    const T* source = p.source + vector % p.gates * p.gate_stride + n * p.stride_n;
    for (Index k = 0; k < p.rows; k += kL) {
      const Index rows = p.rows - k < kL ? p.rows - k : kL;
      Vec<T> tile[kL];
      BPTT_UNROLL for (int i = 0; i < kL; ++i) {
        tile[i] = n + i < p.columns ? load_up_to(source + i * p.stride_n + k, rows) : Vec<T>{};
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
  const Index columns = p.gates * panel_width<T>(p.columns, 0, p.columns + kLanes<T>);
  for (Index begin = 0; begin < columns; begin += p.width) {
    const Index w = panel_width<T>(columns, begin, p.width);
    T* panel = p.panels + begin * p.panel_rows + p.row_offset * w;
    p.stride_n == 1 && p.gates == 1 ? copy_panel(p, begin, panel, w)
                                    : transpose_panel(p, begin, panel, w);
  }
}

}  // namespace bptt::BPTT_ISA
