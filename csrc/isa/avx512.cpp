// Kernels for AVX-512 F, VL, DQ, BW.
#define BPTT_ISA avx512
#include "simd/vec_avx512.h"

#include "isa/kernels.inl"
