// exp, tanh and sigmoid of a vector, the same bits on every ISA that has FMA.
//
// Both write 2^n by its bits: m = fma(x, log2 e, MAGIC), with MAGIC = 1.5 * 2^p + bias, rounds
// x log2 e to the integer n and holds n + bias in its lowest bits; shifted to the exponent's place
// they are 2^n, with no conversion. The polynomials are minimax on |r| <= 0.3468 (Sollya's
// fpminimax). Errors, tested: exp 1.05 ULP, sigmoid 1.7 ULP, tanh 2 ULP in float and 2.1 ULP in
// double.
#pragma once

#include "simd/vec.h"

namespace bptt::BPTT_ISA {

// The polynomials' coefficients.
BPTT_TABLE constexpr float kExpFloat[] = {0x1.fffffcp-2f, 0x1.55549p-3f, 0x1.55589ep-5f,
                                          0x1.123abcp-7f, 0x1.6a624cp-10f};
BPTT_TABLE constexpr float kTanhFloat[] = {0x1.fffffep-2f, 0x1.5554bp-3f, 0x1.555716p-5f,
                                           0x1.1227aap-7f, 0x1.6b73ap-10f};
BPTT_TABLE constexpr double kExpDouble[] = {
    0x1.000000000000ap-1,  0x1.55555555554fdp-3,  0x1.555555555069cp-5,  0x1.1111111126ecbp-7,
    0x1.6c16c18482215p-10, 0x1.a01a012edf549p-13, 0x1.a01999392ab12p-16, 0x1.71df1af29625ap-19,
    0x1.28ae252d63205p-22, 0x1.ad904c232627dp-26};
BPTT_TABLE constexpr double kTanhDouble[] = {
    0x1.0000000000000p-1,  0x1.5555555555559p-3,  0x1.555555555554dp-5,  0x1.111111110f65p-7,
    0x1.6c16c16c1aafcp-10, 0x1.a01a01b006d6fp-13, 0x1.a01a018e12084p-16, 0x1.71ddf8040b191p-19,
    0x1.27e5132bfce35p-22, 0x1.af5f449206a63p-26, 0x1.1f1a593f8c3a4p-29};

template <class T>
struct MathConstants;

template <>
struct MathConstants<float> {
  static constexpr int kMantissaBits = 23;
  static constexpr int kBias = 127;
  static constexpr float kMagic = 0x1.8p23f + 127;
  static constexpr float kLog2E = 0x1.715476p0f;
  static constexpr float kLn2 = 0x1.62e43p-1f;
  static constexpr float kLn2High = 0x1.62e4p-1f, kLn2Low = 0x1.7f7d1cp-20f;
  static constexpr float kTanhLimit = 9.1f, kSigmoidHigh = 80.0f;
  static constexpr float kExpLow = -110.0f, kExpHigh = 89.0f;
  static BPTT_INLINE constexpr const auto& exp_coefficients() { return kExpFloat; }
  static BPTT_INLINE constexpr const auto& tanh_coefficients() { return kTanhFloat; }
};

template <>
struct MathConstants<double> {
  static constexpr int kMantissaBits = 52;
  static constexpr int kBias = 1023;
  static constexpr double kMagic = 0x1.8p52 + 1023;
  static constexpr double kLog2E = 0x1.71547652b82fep0;
  static constexpr double kLn2 = 0x1.62e42fefa39efp-1;
  static constexpr double kLn2High = 0x1.62e42fefa38p-1, kLn2Low = 0x1.ef35793c7673p-45;
  static constexpr double kTanhLimit = 19.1, kSigmoidHigh = 700.0;
  static constexpr double kExpLow = -760.0, kExpHigh = 710.0;
  static BPTT_INLINE constexpr const auto& exp_coefficients() { return kExpDouble; }
  static BPTT_INLINE constexpr const auto& tanh_coefficients() { return kTanhDouble; }
};

// sum c[i] x^i, even and odd powers apart: two chains of half the latency.
template <class T, int N>
BPTT_INLINE Vec<T> polynomial(const T (&c)[N], Vec<T> x) {
  const Vec<T> x2 = x * x;
  Vec<T> high = broadcast(c[N - 1]), low = broadcast(c[N - 2]);
  BPTT_UNROLL for (int i = N - 3; i >= 1; i -= 2) {
    high = fma(high, x2, broadcast(c[i]));
    low = fma(low, x2, broadcast(c[i - 1]));
  }
  // For odd N the last odd-placed chain holds the even powers.
  if constexpr (N % 2) {
    return fma(low, x, fma(high, x2, broadcast(c[0])));
  } else {
    return fma(high, x, low);
  }
}

// 2^n from m = n + MAGIC, for n within the normal exponents.
template <class T>
BPTT_INLINE Vec<T> power_of_two(Vec<T> m) {
  return of_bits<T>(bits_of<T>(m) << MathConstants<T>::kMantissaBits);
}

// e^x; 0 below and infinity above the range of T, NaN for NaN.
template <class T>
BPTT_INLINE Vec<T> exp(Vec<T> x) {
  using C = MathConstants<T>;
  x = min(broadcast(C::kExpHigh), max(broadcast(C::kExpLow), x));
  const Vec<T> m = fma(x, broadcast(C::kLog2E), broadcast(C::kMagic));
  const Vec<T> n = m - broadcast(C::kMagic);
  Vec<T> r = fma(n, broadcast(-C::kLn2High), x);  // exact, with or without a hardware FMA
  r = fma(n, broadcast(-C::kLn2Low), r);
  const Vec<T> p = fma(r * r, polynomial<T>(C::exp_coefficients(), r), r) + T(1);
  // 2^n in two factors: n runs past the normal exponents on both sides.
  const Vec<T> half = fma(n, broadcast(T(0.5)), broadcast(C::kMagic));
  const Vec<T> rest = n - (half - broadcast(C::kMagic)) + broadcast(C::kMagic);
  return p * power_of_two<T>(half) * power_of_two<T>(rest);
}

// tanh x = (1 - e) / (1 + e) with e = exp(-2|x|) = s (1 - 2q), s = 2^n, q = -expm1(-2h)/2,
// h = |x| + n ln2 / 2; the sign is put back last, so odd symmetry is exact.
template <class T>
BPTT_INLINE Vec<T> tanh(Vec<T> x) {
  using C = MathConstants<T>;
  const Bits<T> sign = bits_of<T>(x) & bits_of<T>(broadcast(T(-0.0)));
  const Vec<T> a = min(broadcast(C::kTanhLimit), of_bits<T>(bits_of<T>(x) ^ sign));
  const Vec<T> m = fma(a, broadcast(T(-2) * C::kLog2E), broadcast(C::kMagic));
  const Vec<T> n = m - broadcast(C::kMagic);
  const Vec<T> h = fma(n, broadcast(C::kLn2 / 2), a);
  const Vec<T> r = T(-2) * h;
  const Vec<T> q = fma(h * r, polynomial<T>(C::tanh_coefficients(), r), h);
  const Vec<T> s = power_of_two<T>(m);
  const Vec<T> half = broadcast(T(0.5));
  const Vec<T> half_s = T(0.5) * s;
  const Vec<T> y = fma(s, q, half - half_s) / fma(-s, q, half + half_s);
  return of_bits<T>(bits_of<T>(y) | sign);
}

// 1 / (1 + e), e = exp(-x) = s (1 + q), s = 2^n, q = expm1(r). What 1 + s drops is put back; it
// counts where x is far below 0. 0 where e overflows, NaN for NaN.
template <class T>
BPTT_INLINE Vec<T> sigmoid(Vec<T> x) {
  using C = MathConstants<T>;
  x = -min(broadcast(C::kSigmoidHigh), x);
  const Vec<T> m =
      min(broadcast(C::kMagic + C::kBias), fma(x, broadcast(C::kLog2E), broadcast(C::kMagic)));
  const Vec<T> n = m - broadcast(C::kMagic);
  Vec<T> r = fma(n, broadcast(-C::kLn2High), x);
  r = fma(n, broadcast(-C::kLn2Low), r);
  const Vec<T> q = fma(r * r, polynomial<T>(C::exp_coefficients(), r), r);
  const Vec<T> s = power_of_two<T>(m), one_over_s = power_of_two<T>(broadcast(C::kMagic) - n);
  const Vec<T> one = broadcast(T(1)), sum = one + s, dropped = one - (sum - s);
  return one / fma(s, fma(dropped, one_over_s, q), sum);
}

}  // namespace bptt::BPTT_ISA
