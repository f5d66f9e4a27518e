// Scalar products of a term, of the rest beyond it and of the total, in double and in one pass:
//
//     term·term   term·total   rest·rest   rest·total   (total - rest)·(total - rest)
//
// Then the term joins the rest, and is zero for the next one. The sums run in kSums lanes whatever
// the instruction set, so that their bits are the same on all of them. Of floats the products are
// exact, and it is all one whether they are fused with a sum; those of doubles never are.
#pragma once

#include <cstring>
#include <type_traits>

#include "contract/kernels.h"
#include "simd/vec.h"

namespace bptt::BPTT_ISA {

constexpr Index kSums = 8;
constexpr int kVectorsOfSums = kSums / kLanes<double>;

BPTT_INLINE Vec<double> widen(const double* p) { return load(p); }

template <class T>
BPTT_INLINE Vec<double> plus_product(Vec<double> sum, Vec<double> a, Vec<double> b) {
  if constexpr (std::is_same_v<T, float>) return fma(a, b, sum);
  else return sum + a * b;
}

// kSums values.
template <class T>
BPTT_INLINE void add_products(T* term, T* rest, const T* total,
                              Vec<double> (&sums)[kScalarProducts][kVectorsOfSums]) {
  BPTT_UNROLL for (int v = 0; v < kVectorsOfSums; ++v) {
    const Index at = v * kLanes<double>;
    const Vec<double> a = widen(term + at), r = widen(rest + at), whole = widen(total + at);
    const Vec<double> part = whole - r;
    sums[0][v] = plus_product<T>(sums[0][v], a, a);
    sums[1][v] = plus_product<T>(sums[1][v], a, whole);
    sums[2][v] = plus_product<T>(sums[2][v], r, r);
    sums[3][v] = plus_product<T>(sums[3][v], r, whole);
    sums[4][v] += part * part;
  }
  typedef T Values __attribute__((vector_size(kSums * sizeof(T))));
  Values joined, added;
  std::memcpy(&joined, rest, sizeof(Values));
  std::memcpy(&added, term, sizeof(Values));
  joined += added;
  std::memcpy(rest, &joined, sizeof(Values));
  std::memset(term, 0, sizeof(Values));
}

// The n values that are left, fewer than kSums.
template <class T>
BPTT_INLINE void add_last_products(T* term, T* rest, const T* total, Index n,
                                   Vec<double> (&sums)[kScalarProducts][kVectorsOfSums]) {
  T values[3][kSums] = {};
  for (Index i = 0; i < n; ++i) {
    values[0][i] = term[i];
    values[1][i] = rest[i];
    values[2][i] = total[i];
  }
  add_products(values[0], values[1], values[2], sums);
  for (Index i = 0; i < n; ++i) {
    term[i] = T(0);
    rest[i] = values[1][i];
  }
}

template <class T>
void scalar_products(const ScalarProducts<T>& p) {
  T *const term = p.term, *const rest = p.rest;
  const T* const total = p.total;
  const Index size = p.size;
  Vec<double> sums[kScalarProducts][kVectorsOfSums] = {};
  Index i = 0;
  for (; i + kSums <= size; i += kSums) add_products(term + i, rest + i, total + i, sums);
  if (i < size) add_last_products(term + i, rest + i, total + i, size - i, sums);
  // Constant indices alone, or the sums live on the stack all the time.
  double lanes[kScalarProducts][kSums];
  BPTT_UNROLL for (int k = 0; k < kScalarProducts; ++k) {
    BPTT_UNROLL for (int v = 0; v < kVectorsOfSums; ++v) {
      store(lanes[k] + v * kLanes<double>, sums[k][v]);
    }
  }
  for (int k = 0; k < kScalarProducts; ++k) {
    double sum = 0;
    for (const double lane : lanes[k]) sum += lane;
    p.sums[k] += sum;
  }
}

}  // namespace bptt::BPTT_ISA
