// Kernels for AVX2 and FMA.
#define BPTT_ISA avx2
#include "simd/vec_avx2.h"

#include "isa/kernels.inl"
