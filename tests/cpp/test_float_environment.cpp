// Every thread that computes has the call's floating-point environment, whatever the caller's is;
// and the caller's is as it was after any call, within the question whether to stop, and after a
// stop.
#include <cfenv>
#include <iterator>
#include <vector>

#include "covering.h"
#include "engine/team.h"
#include "isa.h"
#include "network.h"

namespace bptt::test {
namespace {

constexpr int kThreads[] = {1, 2, 3};

// Environments that another library may have left behind: rounding upwards; subnormals the other
// way round than the call wants them.
std::vector<FloatControl> environments() {
  const FloatControl before = float_control();
  std::fesetround(FE_UPWARD);
  const FloatControl upward = float_control();
  set_float_control(before);
  return {before, upward, kFlushSubnormals, kKeepSubnormals};
}

// Half of the smallest normal number, which is zero where subnormals are flushed.
template <class T>
T half_of_smallest() {
  volatile T smallest = std::numeric_limits<T>::min();
  return smallest * T(0.5);
}

// A third, rounded as the thread does.
double third() {
  volatile double one = 1, three = 3;
  return one / three;
}

bool has_control_bits_of(const FloatControl& wanted) {
  const FloatControl now = float_control();
#if defined(__x86_64__)
  return ((now ^ wanted) & ~FloatControl{0x3f}) == 0;  // but for what happened since
#elif defined(__aarch64__)
  return now.fpcr == wanted.fpcr;
#else
  return true;
#endif
}

void members_flush_and_round_to_nearest() {
  for (const FloatControl& callers : environments()) {
    for (int threads : kThreads) {
      const FloatEnvironment environment(callers);
      bool flushed[3], nearest[3];
      {
        Lease lease(threads);
        auto work = [&](int member) {
          flushed[member] = half_of_smallest<float>() == 0 && half_of_smallest<double>() == 0;
          nearest[member] = third() == 0x1.5555555555555p-2;
        };
        lease.run(lease.size(), work);
        CHECK_EQUAL(lease.size(), threads);
      }
      for (int member = 0; member < threads; ++member) CHECK(flushed[member] && nearest[member]);
      CHECK(has_control_bits_of(callers));
    }
  }
}

void members_keep_subnormals_if_told_to() {
  for (int threads : kThreads) {
    const FloatEnvironment environment(kFlushSubnormals);
    bool kept[3];
    Lease lease(threads, Execution{threads, false}.float_control());
    auto work = [&](int member) { kept[member] = half_of_smallest<float>() > 0; };
    lease.run(lease.size(), work);
    for (int member = 0; member < threads; ++member) CHECK(kept[member]);
  }
}

// Whether a gradient fades through subnormal numbers, where they are kept.
template <class T>
bool has_subnormals(const Network<T>& network, const LossChoice& loss) {
  Results<T> r(network);
  Interrupt interrupt(never_asked);
  value_and_grad(network.problem(), network.objective(loss), r.gradients(true, true), {}, {},
                 Execution{1, false}, interrupt);
  return std::any_of(r.dx.begin(), r.dx.end(),
                     [](T value) { return std::fpclassify(value) == FP_SUBNORMAL; });
}

template <class T>
void results_are_the_same_in_any_environment_of() {
  const Sizes sizes{sizeof(T) == 4 ? 700 : 5000, 3, 5, 9, 4};
  const LossChoice at_last{LossId::squared_error, sizes.steps - 1, false};
  const CellId cells[] = {Cells::tanh, Cells::lstm, Cells::gru};
  const std::vector<FloatControl> all_callers = environments();
  const Selection selection(
      {kTypes, std::size(cells), static_cast<int>(all_callers.size()), std::size(kThreads)});
  for (const CellId& cell : cells) {
    const Network<T> network(cell, sizes, Biases::both, 11);
    CHECK(has_subnormals(network, at_last));
    const Results<T> expected = run_value_and_grad(network, at_last, 1);
    for (const FloatControl& callers : all_callers) {
      for (const int& threads : kThreads) {
        if (!selection.has({kType<T>, static_cast<int>(&cell - cells),
                            static_cast<int>(&callers - all_callers.data()),
                            static_cast<int>(&threads - kThreads)}))
          continue;
        const FloatEnvironment environment(callers);
        const Results<T> found = run_value_and_grad(network, at_last, threads);
        CHECK(found.dx.same_bits_as(expected.dx));
        CHECK(found.dw_hh.same_bits_as(expected.dw_hh));
        CHECK_EQUAL(found.loss, expected.loss);
        CHECK(has_control_bits_of(callers));
      }
    }
  }
}

void results_are_the_same_in_any_environment() {
  results_are_the_same_in_any_environment_of<float>();
  results_are_the_same_in_any_environment_of<double>();
}

FloatControl callers_control;
bool asked_in_the_callers;

void the_question_is_asked_in_the_callers_environment() {
  const Network<float> network(Cells::tanh, {20000, 12, 1, 256, 1}, Biases::both, 7);
  for (const FloatControl& callers : environments()) {
    for (int threads : kThreads) {
      const FloatEnvironment environment(callers);
      callers_control = callers;
      asked_in_the_callers = false;
      Interrupt interrupt([] {
        asked_in_the_callers = has_control_bits_of(callers_control);
        return true;
      });
      Results<float> r(network);
      forward(network.problem(), r.record(), r.last_state(), {threads, true}, interrupt);
      CHECK(interrupt.stopped());
      CHECK(asked_in_the_callers);
      CHECK(has_control_bits_of(callers));
    }
  }
}

}  // namespace
}  // namespace bptt::test

int main(int argc, char** argv) {
  using namespace bptt::test;
  return run_tests_on_isa(
      argc, argv,
      {{"members flush subnormals and round to nearest", members_flush_and_round_to_nearest},
       {"members keep subnormals if told to", members_keep_subnormals_if_told_to},
       {"results are the same in any environment", results_are_the_same_in_any_environment},
       {"the question whether to stop is asked in the caller's environment",
        the_question_is_asked_in_the_callers_environment}});
}
