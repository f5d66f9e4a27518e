// scalar_products: the sums have the bits of a scalar loop over lanes, whatever the instruction
// set, and the term joins the rest.
#include <vector>

#include "arrays.h"
#include "isa.h"
#include "random.h"

namespace bptt::test {
namespace {

// Lanes of the sums: value i is added to lane i % kSums.
constexpr Index kSums = 8;

struct Sums {
  double lanes[kScalarProducts][kSums] = {};

  void add(Index i, double term, double rest, double total) {
    const double part = total - rest;
    const double products[kScalarProducts] = {term * term, term * total, rest * rest, rest * total,
                                              part * part};
    for (int k = 0; k < kScalarProducts; ++k) lanes[k][i % kSums] += products[k];
  }

  double of(int k) const {
    double sum = 0;
    for (const double lane : lanes[k]) sum += lane;
    return sum;
  }
};

template <class T>
void check_size(Index size, Random& random) {
  const Scope scope([&](std::ostream& out) { out << "size " << size; });
  const Index gap = random.below(kernels<T>().lanes + 1);
  GuardedArray<T> term(size, gap), rest(size, gap), total(size, gap);
  std::vector<T> joined;
  Sums expected;
  for (Index i = 0; i < size; ++i) {
    term[i] = random.spread<T>();
    rest[i] = random.spread<T>();
    total[i] = random.spread<T>();
    expected.add(i, static_cast<double>(term[i]), static_cast<double>(rest[i]),
                 static_cast<double>(total[i]));
    joined.push_back(rest[i] + term[i]);
  }
  double sums[kScalarProducts];
  for (double& sum : sums) sum = 0.5;  // what they are added to
  kernels<T>().scalar_products({size, term.get(), rest.get(), total.get(), sums});

  for (int k = 0; k < kScalarProducts; ++k) CHECK_EQUAL(sums[k], 0.5 + expected.of(k));
  for (Index i = 0; i < size; ++i) {
    CHECK_EQUAL(rest[i], joined[static_cast<std::size_t>(i)]);
    CHECK_EQUAL(term[i], T(0));
  }
  CHECK(term.intact() && rest.intact() && total.intact());
}

template <class T>
void every_size() {
  Random random(11);
  for (Index size = 0; size <= 4 * kSums + 1; ++size) check_size<T>(size, random);
  for (Index size : {255, 256, 4099}) check_size<T>(size, random);
}

}  // namespace
}  // namespace bptt::test

int main(int argc, char** argv) {
  using namespace bptt::test;
  return run_tests_on_isa(argc, argv,
                          {{"float32: scalar products", every_size<float>},
                           {"float64: scalar products", every_size<double>}});
}
