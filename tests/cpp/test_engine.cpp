// The engine end to end: forward, backward and value_and_grad against the equations in plain loops,
// over awkward sizes, and nothing is written outside their arrays.
#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "covering.h"
#include "engine/crew.h"
#include "isa.h"
#include "network.h"
#include "reference.h"

namespace bptt::test {
namespace {

constexpr Sizes kAwkward[] = {
    {1, 1, 1, 1, 1},    {2, 1, 3, 2, 1},     {3, 2, 1, 7, 2},    {7, 3, 8, 9, 3},
    {5, 8, 17, 31, 7},  {9, 7, 2, 33, 10},   {4, 9, 33, 17, 33}, {17, 2, 9, 65, 1},
    {33, 1, 31, 8, 17}, {2, 31, 7, 100, 9},  {3, 1, 65, 130, 2}, {300, 1, 3, 5, 2},
    {90, 3, 2, 16, 3},  {1, 17, 129, 3, 64}, {3, 33, 64, 64, 8},
};
// Sizes that are cut: into blocks of time, slices of the batch (the last one short), sums of a
// slice, and by long rows, which are packed.
constexpr Sizes kCut[] = {{600, 2, 3, 9, 2}, {40, 21, 5, 17, 3},  {21, 260, 3, 16, 2},
                          {70, 70, 2, 9, 1}, {20, 3, 31, 200, 3}, {2, 18, 5, 260, 2}};
// Sizes with nothing in them.
constexpr Sizes kEmpty[] = {{0, 3, 2, 5, 2}, {3, 0, 2, 5, 2}, {3, 2, 0, 5, 2}, {0, 0, 0, 1, 1}};

// The longest sum behind a number of the result.
Index longest_sum(const Sizes& s) { return s.steps * (s.inputs + s.hidden + s.batch + s.outputs); }

// A few eps for each doubling of the sum, relative to the largest element of the array, or to the
// terms it is summed from, which are not much smaller than a quarter.
template <class T, class Array>
Wide<T> tolerance(const Array& exact, const Sizes& s) {
  Wide<T> largest = 0.25;
  for (auto value : exact) largest = std::max<Wide<T>>(largest, std::fabs(value));
  const double doublings = std::ceil(std::log2(static_cast<double>(2 + longest_sum(s))));
  return 8 * static_cast<Wide<T>>(doublings) * std::numeric_limits<T>::epsilon() * largest;
}

template <class T>
void check_results(const Results<T>& got, const Expected<T>& exact, const Sizes& s) {
  got.for_each_with(exact, [&](const char* name, const auto& values, const auto& expected) {
    const Scope scope([&](std::ostream& out) { out << name; });
    CHECK(values.intact());
    if (expected.empty()) {  // not an output of this call, or an empty one
      CHECK(std::all_of(values.begin(), values.end(), is_canary<T>));
      return;
    }
    const Wide<T> limit = tolerance<T>(expected, s);
    for (Index i = 0; i < values.size(); ++i) {
      const Wide<T> value = expected[static_cast<std::size_t>(i)];
      if (!CHECK_AT_MOST(std::fabs(Wide<T>(values[i]) - value), limit)) break;
    }
  });
}

// f(cell, sizes, biases, seed) for every cell and all sizes that `selection` has of this type.
template <class T, std::size_t N, class F>
void for_each_network(const Selection& selection, const Sizes (&all_sizes)[N], F&& f) {
  std::uint64_t seed = 0;
  for (int cell = 0; cell < Cells::count(); ++cell) {
    for (const Sizes& sizes : all_sizes) {
      const Biases biases = ++seed % 3 ? Biases::both : Biases::none;
      if (!selection.has({kType<T>, cell, static_cast<int>(&sizes - all_sizes)})) continue;
      const Scope scope([&](std::ostream& out) {
        out << name_of(static_cast<CellId>(cell)) << ", " << sizes << ", seed " << seed;
      });
      f(static_cast<CellId>(cell), sizes, biases, seed);
    }
  }
}

template <class T, std::size_t N, class F>
void for_each_network(const Sizes (&all_sizes)[N], F&& f) {
  const Selection selection({kTypes, Cells::count(), static_cast<int>(N)});
  for_each_network<T>(selection, all_sizes, f);
}

template <class T>
void check_both(CellId cell, const Sizes& sizes, Biases biases, std::uint64_t seed) {
  const Network<T> network(cell, sizes, biases, seed, static_cast<Index>(seed % 4));
  const Results<T> got = run_both(network, 2, static_cast<Index>(seed % 3));
  check_results(got, Reference<T>(network, got.y).both(), sizes);
}

constexpr int kLossIds = 2, kLossSteps = 4;

// `selected(id, step, weighted)`, by the numbers of their values.
template <class T, class Selected>
void check_value_and_grad(CellId cell, const Sizes& sizes, Biases biases, std::uint64_t seed,
                          Selected&& selected) {
  const Network<T> network(cell, sizes, biases, seed, static_cast<Index>(seed % 4));
  const Results<T> states = run_both(network, 1);
  Reference<T> reference(network, states.y);
  const Index steps[kLossSteps] = {-1, 0, sizes.steps / 2, sizes.steps - 1};
  for (const Case& c : product_of({kLossIds, kLossSteps, 2})) {
    if (!selected(c[0], c[1], c[2])) continue;
    const Index step = steps[c[1]];
    const LossChoice loss{static_cast<LossId>(c[0]), step < sizes.steps ? step : -1, c[2] == 1};
    const Scope scope([&](std::ostream& out) {
      out << kLossNames[c[0]] << " at " << step << ", weighted " << loss.weighted;
    });
    const Results<T> got = run_value_and_grad(network, loss, 2, static_cast<Index>(seed % 3));
    const Expected<T> exact = reference.value_and_grad(loss);
    check_results(got, exact, sizes);
    const std::vector<Wide<T>> loss_alone{exact.loss};
    CHECK_AT_MOST(std::fabs(got.loss - exact.loss), tolerance<T>(loss_alone, sizes));
  }
}

template <class T, std::size_t N>
void check_value_and_grad(const Sizes (&all_sizes)[N]) {
  const Selection selection({kTypes, Cells::count(), static_cast<int>(N), kLossIds, kLossSteps, 2});
  for_each_network<T>(
      selection, all_sizes,
      [&](CellId cell, const Sizes& sizes, Biases biases, std::uint64_t seed) {
        // What differs between losses is the same code in all cells: of the product, gated ones,
        // which take long, have a part.
        const bool part = !few_cases() && shape_of(cell).gated();
        check_value_and_grad<T>(cell, sizes, biases, seed, [&](int id, int step, int weighted) {
          if (part && (weighted || step % 2 == 1)) return false;
          return selection.has({kType<T>, static_cast<int>(cell),
                                static_cast<int>(&sizes - all_sizes), id, step, weighted});
        });
      });
}

// `added` was `before` everywhere, but for y, which `alone` has the bits of.
template <class T>
void check_added(const Results<T>& added, const Results<T>& alone, const Sizes& s, T before,
                 bool with_readout, bool biased) {
  added.for_each_with(alone, [&](const char* name, const auto& values, const auto& gradient) {
    const Scope scope([&](std::ostream& out) { out << name; });
    CHECK(values.intact());
    const std::string n = name;
    const bool is_state = n == "y" || n == "last" || n == "c" || n == "last_c";
    if (is_state) return;
    const bool is_output = (with_readout || (n != "dw_ho" && n != "db_o")) &&
                           (biased || (n != "db_ih" && n != "db_hh" && n != "db_o"));
    const Wide<T> limit = is_output ? tolerance<T>(gradient, s) + tolerance<T>(values, s) : 0;
    for (Index i = 0; i < values.size(); ++i) {
      const Wide<T> expected = before + (is_output ? Wide<T>(gradient[i]) : 0);
      if (!CHECK_AT_MOST(std::fabs(Wide<T>(values[i]) - expected), limit)) break;
    }
  });
}

template <class T, std::size_t N>
void check_adding(const Sizes (&all_sizes)[N]) {
  const T before = T(-1.5);
  for_each_network<T>(all_sizes, [&](CellId cell, const Sizes& sizes, Biases biases,
                                     std::uint64_t seed) {
    const Network<T> network(cell, sizes, biases, seed);
    const bool biased = network.biased();
    check_added(add_both(network, 2, before), run_both(network, 2), sizes, before, false, biased);
    for (Index step : {Index{-1}, sizes.steps / 2}) {
      const LossChoice loss{LossId::squared_error, step < sizes.steps ? step : -1, false};
      check_added(add_value_and_grad(network, loss, 2, before),
                  run_value_and_grad(network, loss, 2), sizes, before, true, biased);
    }
  });
}

template <class T>
void adding_gives_what_was_there_and_the_gradient() {
  check_adding<T>(kAwkward);
  check_adding<T>(kCut);
  check_adding<T>(kEmpty);
}

template <class T>
void forward_and_backward_follow_the_equations() {
  for_each_network<T>(kAwkward, check_both<T>);
  for_each_network<T>(kCut, check_both<T>);
}

template <class T>
void value_and_grad_follows_the_equations() {
  check_value_and_grad<T>(kAwkward);
  check_value_and_grad<T>(kCut);
}

template <class T>
void nothing_in_gives_nothing_and_zeros() {
  for_each_network<T>(kEmpty, check_both<T>);
  check_value_and_grad<T>(kEmpty);
}

// dy and dstate may each be missing; the gradient is linear in them.
template <class T>
void missing_gradients_are_zero() {
  Network<T> network(Cells::tanh, {5, 3, 2, 9, 1}, Biases::both, 1);
  const Problem<T> problem = network.problem();
  Results<T> all = run_both(network, 1), parts(network);
  Interrupt interrupt(never_asked);
  const auto dstate_from = [&](const T* dy, const T* dstate) {
    backward(problem, std::as_const(all).record(), {dy, nullptr, dstate, nullptr, nullptr},
             parts.gradients(true, false), {}, {1, true}, interrupt);
    return std::vector<T>(parts.dstate.begin(), parts.dstate.end());
  };
  const std::vector<T> from_dy = dstate_from(network.dy.get(), nullptr);
  const std::vector<T> from_dstate = dstate_from(nullptr, network.dstate.get());
  const std::vector<T> from_nothing = dstate_from(nullptr, nullptr);
  for (Index i = 0; i < all.dstate.size(); ++i) {
    const auto at = static_cast<std::size_t>(i);
    CHECK_AT_MOST(std::fabs(from_dy[at] + from_dstate[at] - all.dstate[i]),
                  16 * std::numeric_limits<T>::epsilon());
    CHECK_EQUAL(from_nothing[at], T(0));
  }
}

// A NaN in one row's x stays in that row's results, and reaches the sums over all rows.
template <class T>
void a_nan_spoils_its_own_row_only() {
  const Sizes sizes{6, 5, 3, 33, 1};
  for (int cell = 0; cell < Cells::count(); ++cell) {
    const Scope scope([&](std::ostream& out) { out << name_of(static_cast<CellId>(cell)); });
    Network<T> network(static_cast<CellId>(cell), sizes, Biases::both, 2);
    const Results<T> clean = run_both(network, 2);
    const Index row = 3;
    network.x[row * sizes.inputs] = std::numeric_limits<T>::quiet_NaN();  // at step 0
    const Results<T> spoilt = run_both(network, 2);
    for (Index i = 0; i < clean.y.size(); ++i) {
      if (i / sizes.hidden % sizes.batch == row) {
        CHECK(std::isnan(spoilt.y[i]));
      } else {
        CHECK(same_bits(spoilt.y[i], clean.y[i]));
      }
    }
    for (Index h = 0; h < sizes.hidden; ++h) CHECK(std::isnan(spoilt.dw_hh[h * sizes.hidden]));
  }
}

// Of several slices of the batch, and of one; steps behind each other lie in the same arrays.
template <class T>
void parts_of_the_way_back_have_the_bits_of_one_call() {
  for (const Sizes& sizes : {Sizes{300, 5, 3, 17, 1}, Sizes{140, 2, 4, 9, 1}}) {
    for (int cell = 0; cell < Cells::count(); ++cell) {
      const Scope scope([&](std::ostream& out) { out << name_of(static_cast<CellId>(cell)); });
      const Network<T> network(static_cast<CellId>(cell), sizes, Biases::both, 3);
      Problem<T> problem = network.problem();
      const Results<T> all = run_both(network, 2);
      Results<T> parts(network);
      Interrupt interrupt(never_asked);
      Carried<T> carried;
      const auto run = [&](Range part) {
        problem.part = part;
        backward_part(problem, all.record(), network.incoming(), parts.gradients(true, false),
                      carried, {2, true}, interrupt);
      };
      const Index sum = plan_of(problem, kernel_table().of<T>(), 2, Passes::backward).sum_steps;
      bool refused = false;
      try {
        run({sum + 1, sizes.steps});
      } catch (const std::invalid_argument&) {
        refused = true;
      }
      CHECK(refused);
      run({2 * sum, sizes.steps});
      run({sum, 2 * sum});
      run({0, sum});
      all.for_each_with(parts, [&](const std::string& name, const auto& one, const auto& other) {
        if (name[0] != 'd') return;  // a gradient
        for (Index i = 0; i < one.size(); ++i) CHECK(same_bits(one[i], other[i]));
      });
    }
  }
}

}  // namespace
}  // namespace bptt::test

int main(int argc, char** argv) {
  using namespace bptt::test;
  return run_tests_on_isa(
      argc, argv,
      {{"float32: forward and backward follow the equations",
        forward_and_backward_follow_the_equations<float>},
       {"float64: forward and backward follow the equations",
        forward_and_backward_follow_the_equations<double>},
       {"float32: value_and_grad follows the equations",
        value_and_grad_follows_the_equations<float>},
       {"float64: value_and_grad follows the equations",
        value_and_grad_follows_the_equations<double>},
       {"float32: nothing in gives nothing and zeros", nothing_in_gives_nothing_and_zeros<float>},
       {"float64: nothing in gives nothing and zeros", nothing_in_gives_nothing_and_zeros<double>},
       {"float32: adding gives what was there and the gradient",
        adding_gives_what_was_there_and_the_gradient<float>},
       {"float64: adding gives what was there and the gradient",
        adding_gives_what_was_there_and_the_gradient<double>},
       {"float32: missing gradients are zero", missing_gradients_are_zero<float>},
       {"float64: missing gradients are zero", missing_gradients_are_zero<double>},
       {"float32: parts of the way back have the bits of one call",
        parts_of_the_way_back_have_the_bits_of_one_call<float>},
       {"float64: parts of the way back have the bits of one call",
        parts_of_the_way_back_have_the_bits_of_one_call<double>},
       {"float32: a NaN spoils its own row only", a_nan_spoils_its_own_row_only<float>},
       {"float64: a NaN spoils its own row only", a_nan_spoils_its_own_row_only<double>}});
}
