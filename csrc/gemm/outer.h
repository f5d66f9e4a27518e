// out += leftᵀ · right: the weight gradient of a block of rows (contract: `Outer`).
//
// The tile is added to `out` at the end, so `out` is touched once a sum.
#pragma once

#include "gemm/pack.h"
#include "gemm/tile.h"
#include "simd/partial.h"

namespace bptt::BPTT_ISA {

// Units of a tile of N vectors: a power of two of them, so that a strip is cut evenly, and no more
// than a strip is wide, so that they are neighbours.
template <class T, int N>
constexpr int outer_units() {
  int units = kLanes<T>;
  while (units > most_rows(N, units)) units /= 2;
  return units;
}

// How many rows ahead the first tile of a panel fetches it: x was last read in the forward pass.
constexpr Index kRowsAhead = 16;

template <class T, int M, int N>
void outer_tile(const Outer<T>& p, Index unit, Index column) {
  const Index row_stride = p.right.row_stride ? p.right.row_stride : N * kLanes<T>;
  const T* left = p.left.data + unit / kLanes<T> * p.left.strip_stride + unit % kLanes<T>;
  const T* right = p.right.data + column * p.right.panel_stride + p.right_first * row_stride;
  const Index left_step = p.left_step * kLanes<T>, right_step = p.right_step * row_stride;
  const Strips<T> out{p.out, kLanes<T>, p.out_stride};
  prefetch_tile<M, N>(out, unit, column);  // read at the end
  const Index ahead = unit == p.begin ? kRowsAhead * row_stride : 0;
  Vec<T> acc[M][N] = {};
  for (Index group = 0; group < p.sum.groups; ++group, left += left_step, right += right_step) {
    const T *l = left, *r = right;
    for (Index row = 0; row < p.sum.rows; ++row, l += kLanes<T>, r += row_stride) {
      BPTT_UNROLL for (int v = 0; v < N; ++v) prefetch(r + ahead + v * kLanes<T>);
      rank_one_update<T, M, N>(acc, r, [=](int m) { return l[m]; });
    }
  }
  add_tile<T, M, N>(acc, {out.data, out.strip_stride, out.row_stride}, unit, column, p.columns);
  store_tile<T, M, N>(acc, out, unit, column, p.columns);
}

// The units [begin, end) of one strip, in tiles.
template <class T, int N>
void outer_strip(const Outer<T>& p, Index begin, Index end, Index column) {
  constexpr int kUnits = outer_units<T, N>();
  for (Index unit = begin; unit < end; unit += kUnits) {
    const Index units = end - unit < kUnits ? end - unit : kUnits;
    with_constant<kUnits>(units, [&]<int M>() { outer_tile<T, M, N>(p, unit, column); });
  }
}

// Groups that follow each other are one.
BPTT_INLINE RowGroups joined(const RowGroups& sum, Index left_step, Index right_step) {
  const bool follow = left_step == sum.rows && right_step == sum.rows;
  return follow ? RowGroups{1, sum.groups * sum.rows} : sum;
}

// Strips that go through the panels together. One stays in the first-level cache; but where a sum's
// rows of `right` would fill a second-level cache of 2 MiB, several share what comes from beyond
// it.
template <class T>
BPTT_INLINE Index strips_at_once(const Outer<T>& p) {
  constexpr Index kMostRead = 3 << 19;
  const Index read = p.sum.groups * p.sum.rows * p.columns * static_cast<Index>(sizeof(T));
  return read > kMostRead ? 8 : 1;
}

template <class T>
void outer(const Outer<T>& call) {
  Outer<T> p = call;
  p.sum = joined(p.sum, p.left_step, p.right_step);
  constexpr Index kWidth = kOuterVectors * kLanes<T>;
  const Index units = strips_at_once(p) * kLanes<T>;
  for (; p.begin < call.end; p.begin += units) {
    p.end = call.end - p.begin < units ? call.end : p.begin + units;
    for (Index column = 0; column < p.columns; column += kWidth) {
      const Index vectors = panel_width<T>(p.columns, column, kWidth) / kLanes<T>;
      with_constant<kOuterVectors>(vectors, [&]<int N>() {
        for (Index unit = p.begin; unit < p.end; unit += kLanes<T>) {
          const Index end = p.end - unit < kLanes<T> ? p.end : unit + kLanes<T>;
          outer_strip<T, N>(p, unit, end, column);
        }
      });
    }
  }
}

template <class T>
void column_sums(const ColumnSums<T>& p) {
  for (Index unit = p.begin; unit < p.end; unit += kLanes<T>) {
    const T* left = p.left.data + unit / kLanes<T> * p.left.strip_stride;
    Vec<T> sum{}, partial{};
    Index rows = 0;  // of the partial sum
    for (Index group = 0; group < p.sum.groups; ++group) {
      const T* l = left + group * p.left_step * p.left.row_stride;
      for (Index row = 0; row < p.sum.rows; ++row, l += p.left.row_stride) {
        partial += load(l);
        if (++rows < kRowsOfPartialSum) continue;
        sum += partial;
        partial = Vec<T>{};
        rows = 0;
      }
    }
    if (rows > 0) sum += partial;
    const Index units = p.end - unit;
    for (T* out : p.out) {
      if (out) store_up_to<T>(out + unit, load_up_to(out + unit, units) + sum, units);
    }
  }
}

}  // namespace bptt::BPTT_ISA
