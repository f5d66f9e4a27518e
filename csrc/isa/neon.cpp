// Kernels for AArch64 Advanced SIMD.
#define BPTT_ISA neon
#include "simd/vec_neon.h"

#include "isa/kernels.inl"
