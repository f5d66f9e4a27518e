// Kernels for the baseline of the target.
#define BPTT_ISA generic
#include "simd/vec_generic.h"

#include "isa/kernels.inl"
