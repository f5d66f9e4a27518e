// The floating-point environment of a thread while it computes for a call.
//
// Round to nearest, no traps, and subnormal numbers flushed to zero, as inputs and as results. It
// is set on entry and the thread's own is restored on exit, so neither bits nor time depend on what
// another library set in the caller's thread, and a gradient that fades costs what others cost: a
// multiply-add that meets a subnormal takes over a hundred cycles on many CPUs.
//
// x86 flushes a result whose rounded value is subnormal, AArch64 one that is so before rounding. A
// result that would round up to the smallest normal number is that number on x86, zero on AArch64.
#pragma once

#include <cstdint>

// Tests compile the version for all other CPUs here as well.
#if defined(__x86_64__) && !defined(BPTT_ANY_CPU)
#define BPTT_HAS_MXCSR
#include <immintrin.h>
#elif defined(__aarch64__) && !defined(BPTT_ANY_CPU)
#define BPTT_HAS_FPCR
#else
#include <cfenv>
#endif

namespace bptt {

// A thread's control register, its exception flags included.
#if defined(BPTT_HAS_MXCSR)
using FloatControl = std::uint32_t;                                         // MXCSR
inline constexpr FloatControl kKeepSubnormals = 0x1f80;                     // all traps masked
inline constexpr FloatControl kFlushSubnormals = kKeepSubnormals | 0x8040;  // FTZ and DAZ

inline FloatControl float_control() { return _mm_getcsr(); }
inline void set_float_control(FloatControl control) { _mm_setcsr(control); }
#elif defined(BPTT_HAS_FPCR)
struct FloatControl {
  std::uint64_t fpcr, fpsr;
};
inline constexpr FloatControl kKeepSubnormals = {0, 0};
inline constexpr FloatControl kFlushSubnormals = {1 << 24, 0};  // FZ

inline FloatControl float_control() {
  FloatControl control;
  asm volatile("mrs %0, fpcr" : "=r"(control.fpcr));
  asm volatile("mrs %0, fpsr" : "=r"(control.fpsr));
  return control;
}
inline void set_float_control(FloatControl control) {
  asm volatile("msr fpcr, %0" : : "r"(control.fpcr) : "memory");
  asm volatile("msr fpsr, %0" : : "r"(control.fpsr) : "memory");
}
#else
using FloatControl = std::fenv_t;

inline FloatControl float_control() {
  FloatControl control;
  std::fegetenv(&control);
  return control;
}
inline void set_float_control(const FloatControl& control) { std::fesetenv(&control); }

// The C library's default environment, whatever it does with subnormals. It may be given as a
// special pointer, which only `fesetenv` can read.
inline FloatControl default_float_control() {
  const FloatControl callers = float_control();
  std::fesetenv(FE_DFL_ENV);
  const FloatControl found = float_control();
  set_float_control(callers);
  return found;
}
inline const FloatControl kKeepSubnormals = default_float_control();
inline const FloatControl kFlushSubnormals = default_float_control();
#endif

// The calling thread has `control` while this lives, and its own afterwards.
class FloatEnvironment {
 public:
  explicit FloatEnvironment(const FloatControl& control) : before_(float_control()) {
    set_float_control(control);
  }
  ~FloatEnvironment() { set_float_control(before_); }
  FloatEnvironment(const FloatEnvironment&) = delete;
  FloatEnvironment& operator=(const FloatEnvironment&) = delete;

 private:
  const FloatControl before_;
};

}  // namespace bptt
