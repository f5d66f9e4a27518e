// out += leftᵀ · right: the weight gradient of a block of rows (contract: `Outer`).
//
// The tile starts from zero and is added to `out` at the end, so `out` is touched once a block.
#pragma once

#include "gemm/pack.h"
#include "gemm/tile.h"

namespace bptt::BPTT_ISA {

// Units of a tile: never more than a strip is wide, so that a tile's units are neighbours.
template <class T>
inline constexpr int kOuterUnits = kOuterRows < kLanes<T> ? kOuterRows : kLanes<T>;

template <class T, int M, int N>
void outer_tile(const Outer<T>& p, Index unit, Index column) {
  const Index w = N * kLanes<T>;
  const T* left = p.left.data + unit / kLanes<T> * p.left.strip_stride + unit % kLanes<T>;
  const T* right = p.right + column * p.panel_rows + p.row_offset * w;
  Vec<T> acc[M][N] = {};
  for (Index r = 0; r < p.rows; ++r, left += kLanes<T>, right += w) {
    rank_one_update<T, M, N>(acc, right, [=](int m) { return left[m]; });
  }
  const Strips<T> out{p.out, kLanes<T>, p.out_stride};
  Vec<T> sum[M][N];
  load_tile<T, M, N>(sum, {out.data, out.strip_stride, out.row_stride}, unit, column, p.columns);
  BPTT_UNROLL for (int m = 0; m < M; ++m) {
    BPTT_UNROLL for (int v = 0; v < N; ++v) sum[m][v] += acc[m][v];
  }
  store_tile<T, M, N>(sum, out, unit, column, p.columns);
}

template <class T>
void outer(const Outer<T>& p) {
  constexpr Index kWidth = kOuterVectors * kLanes<T>;
  for (Index unit = p.begin; unit < p.end; unit += kOuterUnits<T>) {
    const Index units = p.end - unit < kOuterUnits<T> ? p.end - unit : kOuterUnits<T>;
    with_constant<kOuterUnits<T>>(units, [&]<int M>() {
      for (Index column = 0; column < p.columns; column += kWidth) {
        const Index vectors = panel_width<T>(p.columns, column, kWidth) / kLanes<T>;
        with_constant<kOuterVectors>(vectors,
                                     [&]<int N>() { outer_tile<T, M, N>(p, unit, column); });
      }
    });
  }
}

template <class T>
void column_sums(const ColumnSums<T>& p) {
  for (Index unit = p.begin; unit < p.end; unit += kLanes<T>) {
    const T* left = p.left.data + unit / kLanes<T> * p.left.strip_stride;
    Vec<T> sum{};
    for (Index first = 0; first < p.rows; first += kRowsOfPartialSum) {
      const Index left_over = p.rows - first;
      const Index last = first + (left_over < kRowsOfPartialSum ? left_over : kRowsOfPartialSum);
      Vec<T> partial{};
      for (Index r = first; r < last; ++r) partial += load(left + r * p.left.row_stride);
      sum += partial;
    }
    const Index units = p.end - unit < kLanes<T> ? p.end - unit : kLanes<T>;
    for (Index u = 0; u < units; ++u) p.out[unit + u] += sum[u];
  }
}

}  // namespace bptt::BPTT_ISA
