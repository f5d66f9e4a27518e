// The yardsticks of the bench: what this machine's multiply-adds can do at most.
#pragma once

#include "contract/kernels.h"

namespace bptt {

// GF/s of up to `threads` threads together, the best of several runs of a millisecond or two: of
// multiply-adds that stay in registers, or, with loads, of the products' register tile, whose
// operands come from the first-level cache.
template <class T>
double fma_peak(int threads, bool loads);

// Seconds of a call of a leaf kernel on this thread, in the best of as many runs, each of `calls`,
// with arrays as the engine has them: of `product`, (rows, k) by packed weights (k,
// columns); and of `outer`, (rows, units) by (rows, columns).
template <class T>
double product_seconds(Index rows, Index k, Index columns, bool far, Index calls);
template <class T>
double outer_seconds(Index rows, Index units, Index columns, Index calls);

}  // namespace bptt
