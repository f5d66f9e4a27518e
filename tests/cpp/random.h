// Numbers that are the same in every run and with every standard library.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "contract/kernels.h"

namespace bptt::test {

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  // SplitMix64 (Steele, Lea, Flood 2014).
  std::uint64_t bits() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  // In [0, n).
  Index below(Index n) { return static_cast<Index>(bits() % static_cast<std::uint64_t>(n)); }

  template <class T, int N>
  const T& any_of(const T (&values)[N]) {
    return values[below(N)];
  }

  // In [-1, 1).
  template <class T>
  T uniform() {
    return static_cast<T>(static_cast<double>(bits() >> 11) * 0x1p-52 - 1);
  }

  // Of either sign and of many magnitudes.
  template <class T>
  T spread() {
    const T value = uniform<T>();  // first: the order of a call's arguments is the compiler's
    return std::ldexp(value, static_cast<int>(below(17)) - 8);
  }

  // Now and then a zero, a subnormal, an infinity or a NaN.
  template <class T>
  T special() {
    using Limits = std::numeric_limits<T>;
    constexpr T kInf = Limits::infinity();
    const T values[] = {T(0), -T(0), kInf, -kInf, Limits::denorm_min(), Limits::quiet_NaN()};
    return below(8) == 0 ? any_of(values) : spread<T>();
  }

 private:
  std::uint64_t state_;
};

}  // namespace bptt::test
