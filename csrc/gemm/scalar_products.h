// Scalar products of a term, of the rest beyond it and of the total, in double and in one pass:
//
//     term·term   term·total   rest·rest   rest·total   (total - rest)·(total - rest)
//
// Then the term joins the rest, and is zero for the next one. The sums run in kSums lanes whatever
// the instruction set, without fused operations, so that their bits are the same on all of them.
#pragma once

#include <cstring>

#include "contract/kernels.h"
#include "simd/vec.h"

namespace bptt::BPTT_ISA {

constexpr Index kSums = 8;
typedef double SumLanes __attribute__((vector_size(kSums * sizeof(double))));

// The first n of kSums neighbouring values; the others are zero.
template <class T>
struct SomeValues {
  typedef T Lanes __attribute__((vector_size(kSums * sizeof(T))));
  Lanes lanes;

  BPTT_INLINE static SomeValues load(const T* from, Index n) {
    SomeValues v{};
    if (n == kSums) std::memcpy(&v.lanes, from, sizeof(Lanes));
    else
      for (Index l = 0; l < n; ++l) v.lanes[l] = from[l];
    return v;
  }
  BPTT_INLINE void store(T* to, Index n) const {
    if (n == kSums) std::memcpy(to, &lanes, sizeof(Lanes));
    else
      for (Index l = 0; l < n; ++l) to[l] = lanes[l];
  }
  BPTT_INLINE SumLanes widen() const { return __builtin_convertvector(lanes, SumLanes); }
};

// kSums values, or the n that are left.
template <class T>
BPTT_INLINE void add_products(const ScalarProducts<T>& p, Index i, Index n,
                              SumLanes (&sums)[kScalarProducts]) {
  const auto term_values = SomeValues<T>::load(p.term + i, n);
  const auto rest_values = SomeValues<T>::load(p.rest + i, n);
  SomeValues<T>{rest_values.lanes + term_values.lanes}.store(p.rest + i, n);
  SomeValues<T>{}.store(p.term + i, n);
  const SumLanes term = term_values.widen(), rest = rest_values.widen();
  const SumLanes total = SomeValues<T>::load(p.total + i, n).widen(), part = total - rest;
  sums[0] += term * term;
  sums[1] += term * total;
  sums[2] += rest * rest;
  sums[3] += rest * total;
  sums[4] += part * part;
}

template <class T>
void scalar_products(const ScalarProducts<T>& p) {
  SumLanes sums[kScalarProducts] = {};
  Index i = 0;
  for (; i + kSums <= p.size; i += kSums) add_products(p, i, kSums, sums);
  if (i < p.size) add_products(p, i, p.size - i, sums);
  for (int k = 0; k < kScalarProducts; ++k) {
    double sum = 0;
    for (Index l = 0; l < kSums; ++l) sum += sums[k][l];
    p.sums[k] += sum;
  }
}

}  // namespace bptt::BPTT_ISA
