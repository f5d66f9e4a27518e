// A stepper gives the bits of one pass over all steps, however these are cut into calls.
//
//     test_stepper ISA
#include <algorithm>
#include <vector>

#include "covering.h"
#include "engine/stepper.h"
#include "isa.h"
#include "network.h"

namespace bptt::test {
namespace {

// Feeds all steps, in calls of 1, 2, ... steps at most `longest`.
template <class T>
void run_in_calls(Stepper<T>& stepper, const Network<T>& n, Index longest, int threads, T* y) {
  const Index row = n.sizes.batch * n.sizes.hidden;
  Index length = 0;
  for (Index t = 0; t < n.sizes.steps; t += length) {
    length = std::min(length % longest + 1, n.sizes.steps - t);
    Interrupt interrupt(never_asked);
    stepper.run(n.x.get() + t * n.sizes.batch * n.sizes.inputs, length, y + t * row, threads,
                interrupt);
  }
}

template <class T>
bool same_bits_as(const GuardedArray<T>& array, const T* other) {
  return std::equal(array.begin(), array.end(), other, [](T a, T b) { return same_bits(a, b); });
}

template <class T>
void calls_have_the_bits_of_one_pass() {
  const Index some = few_cases() ? 6 : 40, many = few_cases() ? 5 : 70;
  for (int cell = 0; cell < Cells::count(); ++cell) {
    for (const Sizes& s : {Sizes{9, 1, 3, 17, 0}, Sizes{9, 3, 1, 8, 0}, Sizes{some, 33, 31, 65, 0},
                           Sizes{4, 2, 7, 1, 0}, Sizes{many, 129, 9, 129, 0}}) {
      for (const int threads : {1, 2}) {
        const Scope scope([&](std::ostream& out) {
          out << name_of(CellId{cell}) << ", " << s << ", threads " << threads;
        });
        const Network<T> network(CellId{cell}, s, Biases::both, 21);
        Results<T> expected(network), found(network);
        Interrupt interrupt(never_asked);
        forward(network.problem(), expected.record(), expected.last_state(), {1, true}, interrupt);
        Stepper<T> stepper(network.problem(), true);
        run_in_calls(stepper, network, s.steps / 2, threads, found.y.get());
        CHECK(found.y.same_bits_as(expected.y));
        CHECK(same_bits_as(expected.last, stepper.state().s));
        if (expected.two) CHECK(same_bits_as(expected.last_c, stepper.state().c));
      }
    }
  }
}

// Ctrl-C at the first question.
template <class T>
void an_interrupted_call_leaves_the_state_before() {
  for (const CellId cell : {Cells::tanh, Cells::lstm}) {
    const Network<T> network(cell, {100, 129, 9, 129, 0}, Biases::none, 22);
    Results<T> r(network);
    Stepper<T> stepper(network.problem(), true);
    Interrupt interrupt([] { return true; });
    const int calls = 100;  // until 50 ms have passed
    for (int i = 0; i < calls && !interrupt.stopped(); ++i) {
      const State<const T> before = stepper.state();
      std::copy_n(before.s, r.last.size(), r.last.get());
      if (r.two) std::copy_n(before.c, r.last_c.size(), r.last_c.get());
      stepper.run(network.x.get(), 100, r.y.get(), 2, interrupt);
    }
    CHECK(interrupt.stopped());
    CHECK(same_bits_as(r.last, stepper.state().s));
    if (r.two) CHECK(same_bits_as(r.last_c, stepper.state().c));
  }
}

template <class T>
void a_row_gets_what_it_is_assigned() {
  const Network<T> network(Cells::lstm, {1, 3, 2, 9, 0}, Biases::both, 23);
  Stepper<T> stepper(network.problem(), true);
  stepper.assign(0, {network.state.get(), network.c.get()}, 2);
  stepper.assign(1, {}, 0);
  const State<const T> state = stepper.state();
  for (Index h = 0; h < 9; ++h) {
    CHECK_EQUAL(state.s[h], network.state[2 * 9 + h]);
    CHECK_EQUAL(state.c[h], network.c[2 * 9 + h]);
    CHECK_EQUAL(state.s[9 + h], T(0));
    CHECK_EQUAL(state.c[9 + h], T(0));
    CHECK_EQUAL(state.s[18 + h], network.state[18 + h]);
  }
}

}  // namespace
}  // namespace bptt::test

int main(int argc, char** argv) {
  using namespace bptt::test;
  return run_tests_on_isa(
      argc, argv,
      {{"float32: calls have the bits of one pass", calls_have_the_bits_of_one_pass<float>},
       {"float64: calls have the bits of one pass", calls_have_the_bits_of_one_pass<double>},
       {"float32: an interrupted call leaves the state before",
        an_interrupted_call_leaves_the_state_before<float>},
       {"float64: an interrupted call leaves the state before",
        an_interrupted_call_leaves_the_state_before<double>},
       {"float32: a row gets what it is assigned", a_row_gets_what_it_is_assigned<float>},
       {"float64: a row gets what it is assigned", a_row_gets_what_it_is_assigned<double>}});
}
