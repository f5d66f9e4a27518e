// out = init + a1 · w1 + a2 · w2 + ... + added, with the weights packed in panels (contract:
// `Product`).
//
// Panels outside, row tiles inside: a panel is read from the first-level cache by every row tile.
#pragma once

#include "gemm/pack.h"
#include "gemm/tile.h"

namespace bptt::BPTT_ISA {

// Rows of a tile of N vectors. With more than 12 there are too few registers for their pointers.
template <int N>
inline constexpr int kProductRows = most_rows(N, 12);

// What a tile fetches of the next panel: so many vectors a step of k.
template <class T, int kVectors>
struct Ahead {
  const T* next;

  BPTT_INLINE void fetch() {
    BPTT_UNROLL for (int v = 0; v < kVectors; ++v) prefetch_nearby(next + v * kLanes<T>);
    next += kVectors * kLanes<T>;
  }
};

// The same column of M neighbouring rows. GCC does not see how far they are apart: if it did, it
// would keep a register for each row and column of an unrolled loop, and spill them.
template <class T, int M>
struct RowOffsets {
  Index bytes[M];

  BPTT_INLINE explicit RowOffsets(Index row_stride) {
    BPTT_UNROLL for (int m = 0; m < M; ++m) {
      bytes[m] = m * row_stride * static_cast<Index>(sizeof(T));
      asm("" : "+r"(bytes[m]));
    }
  }
  BPTT_INLINE const T* of(const T* first, int m) const {
    return reinterpret_cast<const T*>(reinterpret_cast<const char*>(first) + bytes[m]);
  }
};

// How far the columns of a row lie side by side: a strip, or all.
template <class T>
BPTT_INLINE Index contiguous(const typename Product<T>::Segment& s) {
  return s.a.strip_stride == kLanes<T> ? s.k : kLanes<T>;
}

// Adds a whole strip of a. GCC does not see how long it is: it would unroll the two rounds of a
// strip of double, and have too few registers for what is fetched between strips.
template <class T, int M, int N, int kAhead>
BPTT_INLINE void add_strip(Vec<T> (&acc)[M][N], const T* a, const RowOffsets<T, M>& rows,
                           const T*& panel, Ahead<T, kAhead>& ahead) {
  const T* end = a + kLanes<T>;
  asm("" : "+r"(end));
  BPTT_ROLL for (; a != end; a += kUnrolled) {
    BPTT_UNROLL for (int j = 0; j < kUnrolled; ++j, panel += N * kLanes<T>) {
      update_in_place<T, M, N>(acc, panel, [&](int m) { return rows.of(a, m)[j]; });
      ahead.fetch();
    }
  }
}

// The shortest sum that is worth the offsets.
constexpr Index kLeastUnrolled = 256;

// Adds rows [row, row + M) of a · panel to the tile, and fetches the rows below: of a matrix that
// is read once, those of the next step, too.
template <class T, int M, int N, int kAhead>
BPTT_INLINE void accumulate(Vec<T> (&acc)[M][N], const typename Product<T>::Segment& s, Index row,
                            const T* panel, Ahead<T, kAhead> ahead) {
  const Index row_stride = s.a.row_stride;
  const T* a = s.a.data + row * row_stride;
  Index k = s.k;
  // Tiles of the last panel, which may be narrower, are not worth it: GCC would move their sums.
  if constexpr (kUnrolls<T, M, N> && N == kProductVectors) {
    if (k >= kLeastUnrolled) {
      const RowOffsets<T, M> rows(row_stride);
      for (; k >= kLanes<T>; k -= kLanes<T>, a += s.a.strip_stride) {
        const T* const below = a + M * row_stride;
        BPTT_UNROLL for (int m = 0; m < M; ++m) prefetch(rows.of(below, m));
        add_strip<T, M, N>(acc, a, rows, panel, ahead);
      }
    }
  }
  // A row alone is the only one, and rows of steps that follow each other are fetched by the CPU.
  const Index most = M > 1 ? kLanes<T> : contiguous<T>(s);
  for (; k > 0; k -= most, a += s.a.strip_stride) {
    const Index n = k < most ? k : most;
    if constexpr (M > 1) {
      BPTT_UNROLL for (int m = 0; m < M; ++m) prefetch(a + (M + m) * row_stride);
    }
    const T *p = a, *const end = a + n;
    if constexpr (M == 1 && kAhead == 0) {
      for (; p + kUnrolled <= end; p += kUnrolled) {
        BPTT_UNROLL for (int j = 0; j < kUnrolled; ++j, panel += N * kLanes<T>) {
          rank_one_update<T, M, N>(acc, panel, [=](int) { return p[j]; });
        }
      }
    }
    for (; p < end; ++p, panel += N * kLanes<T>) {
      rank_one_update<T, M, N>(acc, panel, [=](int m) { return p[m * row_stride]; });
      ahead.fetch();
    }
  }
}

// The tile below, while this one is computed: what it is added to may come from far away, and so
// may the lines of an output that is written for the first time.
template <int M, int N, class T>
BPTT_INLINE void prefetch_next(const Product<T>& p, Index row, Index column) {
  if (row >= p.rows) return;
  if (p.out_rows) {
    for (const Index end = row + M < p.rows ? row + M : p.rows; row < end; ++row) {
      prefetch_tile<1, N>(p.out, p.out_rows[row], column);
    }
    return;
  }
  const Strips<const T>& read = p.added.data ? p.added : p.init;
  if (!read.data) {
    prefetch_tile<M, N>(p.out, row, column);
  } else if (read.row_stride != 0) {
    prefetch_tile<M, N>(read, row, column);
  }
}

// The sums of a tile's rows, each to where the caller has it. A function of its own: there is one
// tile for every shape.
template <class T, int N>
__attribute__((noinline)) void finish_rows(Vec<T> (*sums)[N], Index rows, const Product<T>& p,
                                           const Index* to, Index column) {
  for (; rows > 0; --rows, ++sums, ++to) {
    Vec<T> acc[1][N];
    BPTT_UNROLL for (int v = 0; v < N; ++v) acc[0][v] = (*sums)[v];
    if (p.added.data) add_tile<T, 1, N>(acc, p.added, *to, column, p.columns);
    store_tile<T, 1, N>(acc, p.out, *to, column, p.columns);
  }
}

// The sums of a tile, to where they go.
template <class T, int M, int N>
BPTT_INLINE void finish(Vec<T> (&acc)[M][N], const Product<T>& p, Index row, Index column) {
  if (p.out_rows) {
    Vec<T> sums[M][N];  // a copy: the sums themselves stay in registers
    BPTT_UNROLL for (int m = 0; m < M; ++m) {
      BPTT_UNROLL for (int v = 0; v < N; ++v) sums[m][v] = acc[m][v];
    }
    return finish_rows<T, N>(sums, M, p, p.out_rows + row, column);
  }
  if (p.added.data) add_tile<T, M, N>(acc, p.added, row, column, p.columns);
  store_tile<T, M, N>(acc, p.out, row, column, p.columns);
}

// Of the panel that comes next, at column `next`, `fetched` vectors of each row are here, and
// kAhead more come meanwhile. Never inlined: who calls it saves registers for all tiles.
template <class T, int M, int N, int kAhead = 0>
__attribute__((noinline)) void product_tile(const Product<T>& p, Index row, Index column,
                                            Index next = 0, Index fetched = 0) {
  Vec<T> acc[M][N] = {};
  if (p.init.data) load_tile<T, M, N>(acc, p.init, row, column, p.columns);
  prefetch_next<M, N>(p, row + M, column);
  for (const auto& s : p.segments) {
    if (s.k == 0) continue;
    const Index begin = next + fetched * kLanes<T>;
    accumulate<T, M, N>(acc, s, row, s.panels + column * s.k,
                        Ahead<T, kAhead>{s.panels + begin * s.k});
  }
  finish<T, M, N>(acc, p, row, column);
}

// All rows of a panel of N vectors.
template <class T, int N>
void product_panel(const Product<T>& p, Index column) {
  for_row_tiles<kProductRows<N>>(p.rows,
                                 [&]<int M>(Index row) { product_tile<T, M, N>(p, row, column); });
}

// The same of the last panel, which may be narrower.
template <class T>
void product_rest(const Product<T>& p, Index column) {
  constexpr Index kWidth = kProductVectors * kLanes<T>;
  const Index vectors = panel_width<T>(p.columns, column, kWidth) / kLanes<T>;
  with_constant<kProductVectors>(vectors, [&]<int N>() { product_panel<T, N>(p, column); });
}

// The same of a full panel, whose tiles share out the next one, a full one, too: it is here when
// they are done. A single tile would ask for it faster than it can come.
template <class T>
void product_panel_ahead(const Product<T>& p, Index column, Index next) {
  constexpr int kN = kProductVectors;
  const Index tiles = (p.rows + kProductRows<kN> - 1) / kProductRows<kN>;
  Index tile = 0;
  for_row_tiles<kProductRows<kN>>(p.rows, [&]<int M>(Index row) {
    const Index fetched = kN * tile / tiles, ahead = kN * (tile + 1) / tiles - fetched;
    ++tile;
    if (ahead == 0) return product_tile<T, M, kN>(p, row, column);
    if (ahead == 1) return product_tile<T, M, kN, 1>(p, row, column, next, fetched);
    product_tile<T, M, kN, kN / 2>(p, row, column, next, fetched);
  });
}

// Two full panels of one row at once: the chains of one alone are too few to hide the latency of a
// multiply-add. Each output's sum is that of `product_tile`.
template <class T>
void product_row(const Product<T>& p, Index column) {
  constexpr int kN = kProductVectors;
  constexpr Index kWidth = kN * kLanes<T>;
  Vec<T> acc[2][1][kN] = {};
  for (int i = 0; i < 2; ++i) {
    if (p.init.data) load_tile<T, 1, kN>(acc[i], p.init, 0, column + i * kWidth, p.columns);
  }
  for (const auto& s : p.segments) {
    if (s.k == 0) continue;
    const T* panel = s.panels + column * s.k;
    const T* next = panel + kWidth * s.k;
    const T* a = s.a.data;
    const Index most = contiguous<T>(s);
    for (Index k = s.k; k > 0; k -= most, a += s.a.strip_stride) {
      const Index n = k < most ? k : most;
      for (const T *at = a, *end = a + n; at < end; ++at, panel += kWidth, next += kWidth) {
        const Vec<T> scalar = broadcast(*at);
        BPTT_UNROLL for (int v = 0; v < kN; ++v) {
          acc[0][0][v] = fma(scalar, load(panel + v * kLanes<T>), acc[0][0][v]);
          acc[1][0][v] = fma(scalar, load(next + v * kLanes<T>), acc[1][0][v]);
        }
      }
    }
  }
  for (int i = 0; i < 2; ++i) {
    finish<T, 1, kN>(acc[i], p, 0, column + i * kWidth);
  }
}

// So many full panels, one after the other.
template <class T>
void product_panels(const Product<T>& p, Index column, Index count, Index step) {
  const bool ahead = p.far && p.rows > kProductRows<kProductVectors>;
  for (; count > 0; --count, column += step) {
    if (ahead && count > 1) {
      product_panel_ahead(p, column, column + step);
    } else {
      product_panel<T, kProductVectors>(p, column);
    }
  }
}

template <class T>
void add_up(const Product<T>& p) {
  constexpr Index kWidth = kProductVectors * kLanes<T>;
  const Index full = (p.end - p.begin) / kWidth;  // panels
  const Index pairs = p.rows == 1 ? full / 2 : 0, singles = full - 2 * pairs;
  const Index after_pairs = p.begin + 2 * pairs * kWidth, rest = p.begin + full * kWidth;
  if (p.downward) {
    if (rest < p.end) product_rest(p, rest);
    product_panels(p, rest - kWidth, singles, -kWidth);
    for (Index i = pairs; i-- > 0;) product_row(p, p.begin + i * 2 * kWidth);
  } else {
    for (Index i = 0; i < pairs; ++i) product_row(p, p.begin + i * 2 * kWidth);
    product_panels(p, after_pairs, singles, kWidth);
    if (rest < p.end) product_rest(p, rest);
  }
}

// Whether the sums are better added up one after the other, in the output: of weights from afar, a
// panel of all of them, the next one and the rows that they meet would not fit a second-level cache
// of 2 MiB. Not where what is added in the end is where the sums are, nor where these are not in
// the order of the rows.
template <class T>
bool one_by_one(const Product<T>& p) {
  constexpr Index kLargePanel = 1 << 19;
  if (!p.far || p.out_rows || p.rows <= kProductRows<kProductVectors>) return false;
  Index count = 0, values = 0;
  for (const auto& s : p.segments) {
    count += s.k > 0;
    values += s.k * kProductVectors * kLanes<T>;
  }
  return p.added.data != p.out.data && count > 1 &&
         values * static_cast<Index>(sizeof(T)) >= kLargePanel;
}

template <class T>
void add_up_one_by_one(const Product<T>& p) {
  Product<T> one = p;
  one.added = {};
  Index last = kMostGates - 1;
  while (p.segments[last].k == 0) --last;
  for (Index i = 0; i <= last; ++i) {
    if (p.segments[i].k == 0) continue;
    for (auto& s : one.segments) s.k = 0;
    one.segments[i] = p.segments[i];
    if (i == last) one.added = p.added;
    add_up(one);
    one.init = {p.out.data, p.out.strip_stride, p.out.row_stride};
  }
}

template <class T>
void product(const Product<T>& p) {
  // A small step is one panel, and no longer than what leads to it.
  if (!p.far && p.end - p.begin == kProductVectors * kLanes<T>) {
    return product_panel<T, kProductVectors>(p, p.begin);
  }
  one_by_one(p) ? add_up_one_by_one(p) : add_up(p);
}

}  // namespace bptt::BPTT_ISA
