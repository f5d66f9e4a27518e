// Scalar products of a term, of the rest beyond it and of the total, in double and in one pass:
//
//     term·term   term·total   rest·rest   rest·total   (total - rest)·(total - rest)
//
// Then the term joins the rest. The sums run in kSums lanes whatever the instruction set, without
// fused operations, so that their bits are the same on all of them.
#pragma once

#include "contract/kernels.h"
#include "simd/vec.h"

namespace bptt::BPTT_ISA {

template <class T>
void scalar_products(const ScalarProducts<T>& p) {
  constexpr Index kSums = 8;
  typedef double Wide __attribute__((vector_size(kSums * sizeof(double))));
  Wide sums[kScalarProducts] = {};
  for (Index i = 0; i < p.size; i += kSums) {
    Wide term{}, rest{}, total{};
    const Index n = p.size - i < kSums ? p.size - i : kSums;
    if (n == kSums) {
      BPTT_UNROLL for (Index l = 0; l < kSums; ++l) {
        term[l] = static_cast<double>(p.term[i + l]);
        rest[l] = static_cast<double>(p.rest[i + l]);
        total[l] = static_cast<double>(p.total[i + l]);
      }
      BPTT_UNROLL for (Index l = 0; l < kSums; ++l) p.rest[i + l] += p.term[i + l];
    } else {
      for (Index l = 0; l < n; ++l) {
        term[l] = static_cast<double>(p.term[i + l]);
        rest[l] = static_cast<double>(p.rest[i + l]);
        total[l] = static_cast<double>(p.total[i + l]);
        p.rest[i + l] += p.term[i + l];
      }
    }
    const Wide part = total - rest;
    sums[0] += term * term;
    sums[1] += term * total;
    sums[2] += rest * rest;
    sums[3] += rest * total;
    sums[4] += part * part;
  }
  for (int k = 0; k < kScalarProducts; ++k) {
    double sum = 0;
    for (Index l = 0; l < kSums; ++l) sum += sums[k][l];
    p.sums[k] += sum;
  }
}

}  // namespace bptt::BPTT_ISA
