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

// What a tile fetches beside its sum, of panels N vectors wide: nothing; the rows that it will come
// to, since x was last read in the forward pass; or rows of the panel that comes next, one for
// every kUnrolled of its own.
template <class T, int N>
struct FetchNothing {
  BPTT_INLINE void at(const T*) {}
  BPTT_INLINE void after_some() {}
};

template <class T, int N>
struct FetchAhead : FetchNothing<T, N> {
  static constexpr Index kRows = 16;
  Index values;

  BPTT_INLINE explicit FetchAhead(Index row_stride) : values(kRows * row_stride) {}
  BPTT_INLINE void at(const T* row) {
    BPTT_UNROLL for (int v = 0; v < N; ++v) prefetch(row + values + v * kLanes<T>);
  }
};

template <class T, int N>
struct FetchNext : FetchNothing<T, N> {
  const T* row;
  Index rows;

  BPTT_INLINE FetchNext(const T* first, Index count) : row(first), rows(count) {}
  BPTT_INLINE void after_some() {
    if (--rows < 0) return;
    BPTT_UNROLL for (int v = 0; v < N; ++v) prefetch_nearby(row + v * kLanes<T>);
    row += N * kLanes<T>;
  }
};

template <class T, int N>
BPTT_INLINE Index row_stride_of(const Columns<T>& right) {
  return right.row_stride ? right.row_stride : N * kLanes<T>;
}

template <class T, int M, int N, class Fetch>
void outer_tile(const Outer<T>& p, Index unit, Index column, Fetch fetch) {
  const Index row_stride = row_stride_of<T, N>(p.right);
  const T* left = p.left.data + unit / kLanes<T> * p.left.strip_stride + unit % kLanes<T>;
  const T* right = p.right.data + column * p.right.panel_stride + p.right_first * row_stride;
  const Index left_step = p.left_step * kLanes<T>, right_step = p.right_step * row_stride;
  const Strips<T> out{p.out, kLanes<T>, p.out_stride};
  prefetch_tile<M, N>(out, unit, column);                                  // read at the end
  constexpr bool kByFour = kUnrolls<T, M, N> && M == outer_units<T, N>();  // not the last units
  Vec<T> acc[M][N] = {};
  for (Index group = 0; group < p.sum.groups; ++group, left += left_step, right += right_step) {
    const T *l = left, *r = right;
    Index rows = p.sum.rows;
    if constexpr (kByFour) {
      for (; rows >= kUnrolled; rows -= kUnrolled, l += kUnrolled * kLanes<T>) {
        BPTT_UNROLL for (int j = 0; j < kUnrolled; ++j, r += row_stride) {
          fetch.at(r);
          update_in_place<T, M, N>(acc, r, [=](int m) { return l[j * kLanes<T> + m]; });
        }
        fetch.after_some();
      }
    }
    for (; rows > 0; --rows, l += kLanes<T>, r += row_stride) {
      fetch.at(r);
      const auto scalar = [=](int m) { return l[m]; };
      if constexpr (kByFour) {  // as above, or GCC moves sums in either loop
        update_in_place<T, M, N>(acc, r, scalar);
      } else {
        rank_one_update<T, M, N>(acc, r, scalar);
      }
    }
  }
  add_tile<T, M, N>(acc, {out.data, out.strip_stride, out.row_stride}, unit, column, p.columns);
  store_tile<T, M, N>(acc, out, unit, column, p.columns);
}

// All units of a panel. The tiles behind the first one share out the rows of a full panel that
// comes `next`, or null.
template <class T, int N>
void outer_panel(const Outer<T>& p, Index column, const T* next) {
  constexpr int kUnits = outer_units<T, N>();
  const Index tiles = (p.end - p.begin + kUnits - 1) / kUnits;
  for (Index tile = 0; tile < tiles; ++tile) {
    const Index unit = p.begin + tile * kUnits;
    const Index units = p.end - unit < kUnits ? p.end - unit : kUnits;
    with_constant<kUnits>(units, [&]<int M>() {
      if (tile == 0 && (column == 0 || !next)) {
        return outer_tile<T, M, N>(p, unit, column, FetchAhead<T, N>(row_stride_of<T, N>(p.right)));
      }
      if constexpr (M == kUnits && N == kOuterVectors) {
        if (next) {
          const Index rows = p.sum.rows * p.sum.groups;
          const Index first = rows * tile / tiles, end = rows * (tile + 1) / tiles;
          const T* const row = next + first * N * kLanes<T>;
          return outer_tile<T, M, N>(p, unit, column, FetchNext<T, N>(row, end - first));
        }
      }
      outer_tile<T, M, N>(p, unit, column, FetchNothing<T, N>());
    });
  }
}

// Groups that follow each other are one.
BPTT_INLINE RowGroups joined(const RowGroups& sum, Index left_step, Index right_step) {
  const bool follow = left_step == sum.rows && right_step == sum.rows;
  return follow ? RowGroups{1, sum.groups * sum.rows} : sum;
}

// Strips that go through the panels together. One stays in the first-level cache; but where a sum's
// rows of `right` come from afar, or would fill a second-level cache of 2 MiB, several share what
// comes from beyond it.
template <class T>
BPTT_INLINE Index strips_at_once(const Outer<T>& p) {
  constexpr Index kMostRead = 3 << 19;
  const Index read = p.sum.groups * p.sum.rows * p.columns * static_cast<Index>(sizeof(T));
  return p.far ? 16 : read > kMostRead ? 8 : 1;
}

// The panel at `column` from the first row of the sum on, or null if it is not a full one from
// afar.
template <class T>
BPTT_INLINE const T* far_panel(const Outer<T>& p, Index column) {
  constexpr Index kWidth = kOuterVectors * kLanes<T>;
  constexpr bool kFetches = kUnrolls<T, outer_units<T, kOuterVectors>(), kOuterVectors>;
  const bool contiguous = p.right.row_stride == 0 && p.sum.groups == 1;
  if (!kFetches || !p.far || !contiguous || column + kWidth > p.columns) return nullptr;
  return p.right.data + column * p.right.panel_stride + p.right_first * kWidth;
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
      with_constant<kOuterVectors>(
          vectors, [&]<int N>() { outer_panel<T, N>(p, column, far_panel(p, column + kWidth)); });
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
