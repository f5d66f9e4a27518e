// The register tile: M x N vectors of accumulators that stay in registers through a whole sum.
//
// GCC keeps an array in registers only if every loop over it has constant bounds and is unrolled;
// hence the pragmas. A sum runs over k upwards in every tile shape, so a value does not depend on
// which tile it was computed in.
#pragma once

#include <type_traits>
#include <utility>

#include "contract/kernels.h"
#include "simd/partial.h"
#include "simd/vec.h"

namespace bptt::BPTT_ISA {

// Rows of a tile of n vectors that leaves no register short, at most `limit`: there are m x n
// accumulators, the scalars of a row or its vectors, whichever are fewer, and one of the other. One
// accumulator that lives on the stack instead bounds the tile by the latency of a store and a load.
constexpr int most_rows(int n, int limit) {
  int m = limit;
  while (m * n + (m < n ? m : n) + 1 > kRegisters) --m;
  return m;
}

// acc[m][v] = fma(a(m), row[v], acc[m][v]): one step of the sum, `row` N vectors in memory.
template <class T, int M, int N, class A>
BPTT_INLINE void rank_one_update(Vec<T> (&acc)[M][N], const T* row, A a) {
  if constexpr (M < N) {
    // Fewer rows than vectors: hold the row's scalars, take each vector once. Pinned, or
    // GCC folds the load of a vector into each FMA that reads it.
    Vec<T> scalars[M];
    BPTT_UNROLL for (int m = 0; m < M; ++m) scalars[m] = broadcast(a(m));
    BPTT_UNROLL for (int v = 0; v < N; ++v) {
      Vec<T> b = load(row + v * kLanes<T>);
      if constexpr (M > 1) pin(b);
      BPTT_UNROLL for (int m = 0; m < M; ++m) acc[m][v] = fma(scalars[m], b, acc[m][v]);
    }
  } else {
    Vec<T> b[N];
    BPTT_UNROLL for (int v = 0; v < N; ++v) b[v] = load(row + v * kLanes<T>);
    BPTT_UNROLL for (int m = 0; m < M; ++m) {
      const Vec<T> scalar = broadcast(a(m));
      BPTT_UNROLL for (int v = 0; v < N; ++v) acc[m][v] = fma(scalar, b[v], acc[m][v]);
    }
  }
}

// Steps of a sum between which there is no branch: what counts and jumps shares its ports with
// multiply-adds on some CPUs. Only where a tile is bound by its ports, not by the latency of few
// chains.
constexpr int kUnrolled = 4;
template <class T, int M, int N>
inline constexpr bool kUnrolls = M * N >= 20 && kLanes<T> >= 2 * kUnrolled;

// acc[m][v] += a(m) · row[v] as in `rank_one_update`, each sum where it is: without the moves that
// GCC makes between the steps of an unrolled loop.
template <class T, int M, int N, class A>
BPTT_INLINE void update_in_place(Vec<T> (&acc)[M][N], const T* row, A a) {
  Vec<T> b[N];
  BPTT_UNROLL for (int v = 0; v < N; ++v) b[v] = load(row + v * kLanes<T>);
  BPTT_UNROLL for (int m = 0; m < M; ++m) {
    const Vec<T> scalar = broadcast(a(m));
    BPTT_UNROLL for (int v = 0; v < N; ++v) fma_into(acc[m][v], scalar, b[v]);
  }
}

// acc = the (M, N vectors) of a matrix at (row, column); the last vector may be partial. Taken by
// value: the compiler need not fear that a store changes the strides.
template <class T, int M, int N>
BPTT_INLINE void load_tile(Vec<T> (&acc)[M][N], const Strips<const T> from, Index row, Index column,
                           Index columns) {
  const T* p = from.data + column / kLanes<T> * from.strip_stride + row * from.row_stride;
  const Index last = columns - column - (N - 1) * kLanes<T>;
  BPTT_UNROLL for (int m = 0; m < M; ++m, p += from.row_stride) {
    const T* at = p;
    BPTT_UNROLL for (int v = 0; v < N - 1; ++v, at += from.strip_stride) acc[m][v] = load(at);
    acc[m][N - 1] = load_up_to(at, last);
  }
}

// acc += the same of a matrix.
template <class T, int M, int N>
BPTT_INLINE void add_tile(Vec<T> (&acc)[M][N], const Strips<const T> from, Index row, Index column,
                          Index columns) {
  Vec<T> before[M][N];
  load_tile<T, M, N>(before, from, row, column, columns);
  BPTT_UNROLL for (int m = 0; m < M; ++m) {
    BPTT_UNROLL for (int v = 0; v < N; ++v) acc[m][v] += before[m][v];
  }
}

// Fetches the tile at (row, column), which need not exist, to read it or, if T is not const, to
// write it.
template <int M, int N, class T>
BPTT_INLINE void prefetch_tile(const Strips<T> m, Index row, Index column) {
  constexpr int kL = kLanes<std::remove_const_t<T>>;
  T* p = m.data + column / kL * m.strip_stride + row * m.row_stride;
  BPTT_UNROLL for (int i = 0; i < M; ++i, p += m.row_stride) {
    BPTT_UNROLL for (int v = 0; v < N; ++v) prefetch(p + v * m.strip_stride);
  }
}

template <class T, int M, int N>
BPTT_INLINE void store_tile(const Vec<T> (&acc)[M][N], const Strips<T> to, Index row, Index column,
                            Index columns) {
  T* p = to.data + column / kLanes<T> * to.strip_stride + row * to.row_stride;
  const Index last = columns - column - (N - 1) * kLanes<T>;
  BPTT_UNROLL for (int m = 0; m < M; ++m, p += to.row_stride) {
    T* at = p;
    BPTT_UNROLL for (int v = 0; v < N - 1; ++v, at += to.strip_stride) store<T>(at, acc[m][v]);
    store_up_to<T>(at, acc[m][N - 1], last);
  }
}

// Calls f.operator()<n>() for a run-time n in [1, Max].
template <int Max, class F>
BPTT_INLINE void with_constant(Index n, F&& f) {
  [&]<int... I>(std::integer_sequence<int, I...>) {
    ((n == I + 1 ? f.template operator()<I + 1>() : void()), ...);
  }(std::make_integer_sequence<int, Max>{});
}

// Calls f.operator()<m>(row) for row tiles of at most Max rows and nearly equal heights: no tile
// is left with a single row as long as there are more.
template <int Max, class F>
BPTT_INLINE void for_row_tiles(Index rows, F&& f) {
  if (rows == 1) return f.template operator()<1>(0);  // at once: such a step is soon done
  if (rows < 1) return;
  const Index tiles = (rows + Max - 1) / Max, least = rows / tiles, rest = rows % tiles;
  for (Index i = 0, row = 0; i < tiles; ++i) {
    const Index m = least + (i < rest);
    with_constant<Max>(m, [&]<int M>() { f.template operator()<M>(row); });
    row += m;
  }
}

}  // namespace bptt::BPTT_ISA
