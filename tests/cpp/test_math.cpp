// tanh and exp: the error in units of the last place, the exact values, and the same bits wherever
// a value stands in an array.
#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "arrays.h"
#include "covering.h"
#include "isa.h"
#include "random.h"

namespace bptt::test {
namespace {

template <class T>
using Function = void (*)(const T* x, T* y, Index n);
template <class T>
using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

template <class T>
std::vector<T> map(Function<T> f, const std::vector<T>& x) {
  std::vector<T> y(x.size());
  f(x.data(), y.data(), static_cast<Index>(x.size()));
  return y;
}

// Sign-symmetric values whose bits are `count` equal steps from 0 to `limit`, and as many spread
// evenly over [-limit, limit].
template <class T>
std::vector<T> dense(T limit, Index count) {
  std::vector<T> x;
  const auto last = std::bit_cast<Bits<T>>(limit);
  const auto step = last / static_cast<Bits<T>>(count);
  Random random(9);
  for (Index i = 0; i < count; ++i) {
    const auto within = static_cast<Bits<T>>(random.bits() % step);
    const T value = std::bit_cast<T>(static_cast<Bits<T>>(i) * step + within);
    x.insert(x.end(), {value, -value, limit * random.uniform<T>()});
  }
  return x;
}

// |y - exact| in units of the last place that T has at `exact`.
template <class T>
double ulps(T y, long double exact) {
  using Limits = std::numeric_limits<T>;
  if (std::isinf(y) && std::fabs(exact) > static_cast<long double>(Limits::max())) return 0;
  const int exponent = exact == 0 ? Limits::min_exponent : std::ilogb(exact) + 1;
  const int last_place = std::max(exponent, Limits::min_exponent) - Limits::digits;
  return static_cast<double>(std::fabs(y - exact) / std::ldexp(1.0L, last_place));
}

struct WorstError {
  double ulps = 0;
  double x = 0;
};

// What is exact enough. AArch64 computes long doubles in software.
template <class T>
using Exact = std::conditional_t<sizeof(T) == 4, double, long double>;

template <class T>
WorstError worst_error(Function<T> f, Exact<T> (*exact)(Exact<T>), T limit) {
  const Index count = sizeof(T) == 4 ? 300'000 : 200'000;
  const std::vector<T> x = dense(limit, few_cases() ? count / 8 : count);
  const std::vector<T> y = map(f, x);
  WorstError worst;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double error = ulps(y[i], exact(Exact<T>{x[i]}));
    if (!(error <= worst.ulps)) worst = {error, static_cast<double>(x[i])};
  }
  return worst;
}

template <class T>
void tanh_is_within_its_error() {
  const WorstError worst = worst_error<T>(kernels<T>().tanh, std::tanh, T(25));
  const Scope scope([&](std::ostream& out) { out << "x = " << worst.x; });
  CHECK_AT_MOST(worst.ulps, sizeof(T) == 4 ? 2.0 : 2.1);
}

template <class T>
void exp_is_within_its_error() {
  const T limit = sizeof(T) == 4 ? T(112) : T(770);
  const WorstError worst = worst_error<T>(kernels<T>().exp, std::exp, limit);
  const Scope scope([&](std::ostream& out) { out << "x = " << worst.x; });
  CHECK_AT_MOST(worst.ulps, 1.1);
}

template <class T>
void special_values_are_exact() {
  using Limits = std::numeric_limits<T>;
  const T inf = Limits::infinity(), nan = Limits::quiet_NaN(), tiny = Limits::denorm_min();
  const std::vector<T> x = {T(0),          -T(0),           inf, -inf, nan, tiny, -tiny,
                            Limits::max(), Limits::lowest()};
  const std::vector<T> tanh = {T(0), -T(0), T(1), T(-1), nan, tiny, -tiny, T(1), T(-1)};
  const std::vector<T> exp = {T(1), T(1), inf, T(0), nan, T(1), T(1), inf, T(0)};
  const std::vector<T> tanh_x = map(kernels<T>().tanh, x), exp_x = map(kernels<T>().exp, x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const Scope scope([&](std::ostream& out) { out << "x = " << x[i]; });
    if (!same_bits(tanh_x[i], tanh[i])) CHECK_EQUAL(tanh_x[i], tanh[i]);
    if (!same_bits(exp_x[i], exp[i])) CHECK_EQUAL(exp_x[i], exp[i]);
  }
}

template <class T>
void tanh_is_odd_and_bounded() {
  const std::vector<T> x = dense(T(30), 10'000);
  std::vector<T> minus_x;
  for (T value : x) minus_x.push_back(-value);
  const std::vector<T> y = map(kernels<T>().tanh, x), minus_y = map(kernels<T>().tanh, minus_x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    CHECK(same_bits(y[i], -minus_y[i]));
    CHECK_AT_MOST(std::fabs(y[i]), T(1));
  }
}

template <class T>
void bits_do_not_depend_on_the_place() {
  Random random(10);
  for (Function<T> f : {kernels<T>().tanh, kernels<T>().exp}) {
    for (Index n = 0; n <= 2 * kernels<T>().lanes + 1; ++n) {
      const Scope scope([&](std::ostream& out) { out << "n = " << n; });
      GuardedArray<T> x(n, random.below(3)), y(n, random.below(3));
      for (T& value : x) value = random.special<T>();
      f(x.get(), y.get(), n);
      for (Index i = 0; i < n; ++i) CHECK(same_bits(y[i], map(f, std::vector<T>{x[i]})[0]));
      CHECK(y.intact());
    }
  }
}

// x87 long doubles are what makes these tests exact; valgrind, for one, rounds them to double.
bool long_double_is_precise() {
  volatile long double three = 3;
  const long double third = 1 / three;
  return third != static_cast<long double>(static_cast<double>(third));
}

}  // namespace
}  // namespace bptt::test

int main(int argc, char** argv) {
  using namespace bptt::test;
  if (!long_double_is_precise()) {
    std::cout << "skipped: long double is no wider than double here" << std::endl;
    return kSkipped;
  }
  return run_tests_on_isa(
      argc, argv,
      {{"float32: tanh is within 2.0 ULP", tanh_is_within_its_error<float>},
       {"float64: tanh is within 2.1 ULP", tanh_is_within_its_error<double>},
       {"float32: exp is within 1.1 ULP", exp_is_within_its_error<float>},
       {"float64: exp is within 1.1 ULP", exp_is_within_its_error<double>},
       {"float32: special values are exact", special_values_are_exact<float>},
       {"float64: special values are exact", special_values_are_exact<double>},
       {"float32: tanh is odd and bounded", tanh_is_odd_and_bounded<float>},
       {"float64: tanh is odd and bounded", tanh_is_odd_and_bounded<double>},
       {"float32: bits do not depend on the place", bits_do_not_depend_on_the_place<float>},
       {"float64: bits do not depend on the place", bits_do_not_depend_on_the_place<double>}});
}
