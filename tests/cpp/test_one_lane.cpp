// What is written for vectors, on one lane as a thread of a GPU computes it: the bits of the CPU's
// vectors, of elementary functions and of the equations of every cell.
#define BPTT_ISA one_lane
#include "simd/one_lane.h"

#include "arrays.h"
#include "cells/elman.h"
#include "cells/gru.h"
#include "cells/lstm.h"
#include "isa.h"
#include "random.h"

namespace bptt::test {
namespace {

template <class T>
void check_bits(T found, T expected) {
  if (!same_bits(found, expected)) CHECK_EQUAL(found, expected);
}

template <class T>
void check_function(T (*one)(T), void (*vectors)(const T*, T*, bptt::Index)) {
  Random random(31);
  constexpr int kValues = 1 << 17;
  std::vector<T> x(kValues), y(kValues);
  for (T& value : x) value = random.special<T>();
  vectors(x.data(), y.data(), kValues);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const Scope scope([&](std::ostream& out) { out << "x = " << x[i]; });
    check_bits(one(x[i]), y[i]);
  }
}

template <class T>
void functions() {
  check_function<T>(one_lane::tanh<T>, kernels<T>().tanh);
  check_function<T>(one_lane::sigmoid<T>, kernels<T>().sigmoid);
  check_function<T>(one_lane::exp<T>, kernels<T>().exp);
}

template <class T>
std::vector<T> some(bptt::Index count, Random& random) {
  std::vector<T> values(static_cast<std::size_t>(count));
  for (T& value : values) value = 4 * random.uniform<T>();
  return values;
}

constexpr bptt::Index kUnits = 1 << 10;  // whole vectors, and so the sums of a gate lie by vectors

template <class T, class Gated>
void check_forward(const Cell<T>& cell, Random& random) {
  constexpr int kG = Gated::kGates, kS = Gated::kSaved;
  const auto sums = some<T>(kG * kUnits, random), recurrent = some<T>(kG * kUnits, random);
  const auto previous = some<T>(kUnits, random);
  std::vector<T> y(kUnits), c(kUnits), saved(kS * kUnits);
  cell.gates_forward({1, 0, kUnits, kUnits, sums.data(), recurrent.data(), kG * kUnits,
                      previous.data(), y.data(), c.data(), saved.data(), 0});
  const bptt::Index lanes = kernels<T>().lanes;
  for (bptt::Index u = 0; u < kUnits; ++u) {
    T i[kG], h[kG], gates[kS], c_t{}, s;
    for (int g = 0; g < kG; ++g) {
      const auto at = static_cast<std::size_t>((u / lanes * kG + g) * lanes + u % lanes);
      i[g] = sums[at], h[g] = recurrent[at];
    }
    const auto unit = static_cast<std::size_t>(u);
    Gated::forward(i, h, previous[unit], gates, c_t, s);
    check_bits(s, y[unit]);
    if (Gated::kStates == 2) check_bits(c_t, c[unit]);
    for (int p = 0; p < kS; ++p)
      check_bits(gates[p], saved[unit + static_cast<std::size_t>(p * kUnits)]);
  }
}

template <class T, class Gated>
void check_backward(const Cell<T>& cell, bool dc_outside, Random& random) {
  constexpr int kS = Gated::kSaved, kD = Gated::kGates + Gated::kApart;
  const auto saved = some<T>(kS * kUnits, random), previous = some<T>(kUnits, random);
  const auto c = some<T>(kUnits, random), ds = some<T>(kUnits, random);
  const auto carry_before = some<T>(kUnits, random), dc = some<T>(kUnits, random);
  std::vector<T> carry = carry_before, delta(kD * kUnits);
  const bptt::Index lanes = kernels<T>().lanes;
  cell.gates_backward({1, 0, kUnits, kUnits, saved.data(), previous.data(), c.data(),
                       dc_outside ? dc.data() : nullptr, ds.data(), carry.data(), kUnits,
                       delta.data(), kUnits, lanes});
  for (std::size_t u = 0; u < static_cast<std::size_t>(kUnits); ++u) {
    T gates[kS], da[kD], carried = carry_before[u];
    for (int p = 0; p < kS; ++p) gates[p] = saved[u + static_cast<std::size_t>(p * kUnits)];
    Gated::backward(gates, previous[u], c[u], ds[u], dc_outside ? dc[u] : T(-0.0), carried, da);
    check_bits(carried, carry[u]);
    for (int p = 0; p < kD; ++p) check_bits(da[p], delta[u + static_cast<std::size_t>(p * kUnits)]);
  }
}

template <class T, class Policy>
void check_elman(const Cell<T>& cell, Random& random) {
  const auto a = some<T>(kUnits, random), s = some<T>(kUnits, random);
  std::vector<T> y = a, da = a;
  const bptt::Index lanes = kernels<T>().lanes;
  cell.forward({1, 0, kUnits, {}, {y.data(), lanes, kUnits}});
  cell.backward({1, 0, kUnits, {s.data(), lanes, kUnits}, {da.data(), lanes, kUnits}});
  for (std::size_t u = 0; u < a.size(); ++u) {
    check_bits(Policy::activate(a[u]), y[u]);
    check_bits(Policy::chain(a[u], s[u]), da[u]);
  }
}

template <class T>
void cells() {
  Random random(32);
  const auto cell = [](CellId id) { return kernels<T>().cells[static_cast<std::size_t>(id)]; };
  check_elman<T, one_lane::Linear<T>>(cell(Cells::linear), random);
  check_elman<T, one_lane::Tanh<T>>(cell(Cells::tanh), random);
  check_elman<T, one_lane::Relu<T>>(cell(Cells::relu), random);
  check_forward<T, one_lane::Lstm<T>>(cell(Cells::lstm), random);
  check_forward<T, one_lane::Gru<T>>(cell(Cells::gru), random);
  for (bool dc_outside : {false, true}) {
    check_backward<T, one_lane::Lstm<T>>(cell(Cells::lstm), dc_outside, random);
    check_backward<T, one_lane::Gru<T>>(cell(Cells::gru), dc_outside, random);
  }
}

}  // namespace
}  // namespace bptt::test

int main(int argc, char** argv) {
  using namespace bptt::test;
  return run_tests_on_isa(
      argc, argv,
      {{"float32: exp, tanh and sigmoid have the bits of vectors", functions<float>},
       {"float64: exp, tanh and sigmoid have the bits of vectors", functions<double>},
       {"float32: cells have the bits of vectors", cells<float>},
       {"float64: cells have the bits of vectors", cells<double>}});
}
