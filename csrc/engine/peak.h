// The yardstick of the bench: how many fused multiply-adds this machine does, with no memory.
#pragma once

namespace bptt {

// GF/s of up to `threads` threads together, the best of several runs of about 10 ms.
template <class T>
double fma_peak(int threads);

}  // namespace bptt
