// An interrupt ends every long call early, on one thread and on several; without one the callback
// is asked now and then and the call goes on.
#include <algorithm>
#include <chrono>

#include "engine/readout_alone.h"
#include "isa.h"
#include "network.h"

namespace bptt::test {
namespace {

using Clock = Interrupt::Clock;
constexpr Clock::duration kOften = std::chrono::milliseconds(2);

int times_asked;

bool stop() {
  ++times_asked;
  return true;
}

bool go_on() {
  ++times_asked;
  return false;
}

// A call that takes many times as long ends at the first question; what it would write last is the
// caller's to look at.
template <class F>
void check_stops(const char* name, const Sizes& sizes, int threads, F&& call) {
  const Scope scope(
      [&](std::ostream& out) { out << name << ", " << sizes << ", " << threads << " threads"; });
  times_asked = 0;
  Interrupt interrupt(stop, kOften);
  call(interrupt);
  CHECK(interrupt.stopped());
  CHECK_AT_MOST(1, times_asked);
}

// Split over hidden units; over rows, with shared products; with slices for each, more for one
// than for the others; as a pipeline.
constexpr Sizes kLong[] = {
    {1000, 1, 1, 2048, 1}, {600, 12, 1, 512, 1}, {2000, 200, 1, 64, 1}, {200'000, 1, 1, 64, 1}};

void long_calls_end_early() {
  for (const Sizes& s : kLong) {
    const Network<float> network(Cells::tanh, s, Biases::both, 7);
    const Problem<float> problem = network.problem();
    const Objective<float> objective = network.objective({LossId::squared_error, -1, false});
    for (int threads : {1, 3}) {
      Results<float> r(network);
      check_stops("forward", s, threads, [&](Interrupt& interrupt) {
        forward(problem, r.record(), r.last_state(), {threads, true}, interrupt);
      });
      CHECK(is_canary(r.y[r.y.size() - 1]));
      check_stops("backward", s, threads, [&](Interrupt& interrupt) {
        backward(problem, std::as_const(r).record(), network.incoming(), r.gradients(true, false),
                 {}, {threads, true}, interrupt);
      });
      CHECK(is_canary(r.dx[0]));
      check_stops("value_and_grad", s, threads, [&](Interrupt& interrupt) {
        value_and_grad(problem, objective, r.gradients(true, true), {}, {}, {threads, true},
                       interrupt);
      });
      CHECK(is_canary(r.dx[0]));
    }
  }
}

// Nearly all of the work is the readout's.
void a_long_readout_ends_early() {
  const Network<float> network(Cells::tanh, {4000, 1, 1, 64, 1}, Biases::none, 7);
  Results<float> r(network);
  constexpr Index kOutputs = 20'000;
  GuardedArray<float> w_ho(kOutputs * 64), dw_ho(kOutputs * 64);
  std::fill(w_ho.begin(), w_ho.end(), 0.01f);
  Objective<float> objective = network.objective({LossId::cross_entropy, -1, false});
  objective.outputs = kOutputs;
  objective.w_ho = w_ho.get();
  Gradients<float> gradients = r.gradients(false, false);
  gradients.w_ho = dw_ho.get();
  for (int threads : {1, 3}) {
    check_stops("value_and_grad", network.sizes, threads, [&](Interrupt& interrupt) {
      value_and_grad(network.problem(), objective, gradients, {}, {}, {threads, true}, interrupt);
    });
    CHECK(is_canary(r.dx[0]));
  }
}

// The readout of states that are there.
void a_long_readout_alone_ends_early() {
  const Network<float> network(Cells::tanh, {4000, 1, 1, 64, 1}, Biases::none, 7);
  Results<float> r(network);
  constexpr Index kOutputs = 20'000;
  GuardedArray<float> w_ho(kOutputs * 64), dw_ho(kOutputs * 64), dy(r.y.size());
  std::fill(w_ho.begin(), w_ho.end(), 0.01f);
  std::fill(r.y.begin(), r.y.end(), 0.01f);
  Objective<float> objective = network.objective({LossId::cross_entropy, -1, false});
  objective.outputs = kOutputs;
  objective.w_ho = w_ho.get();
  for (int threads : {1, 3}) {
    check_stops("readout_gradient", network.sizes, threads, [&](Interrupt& interrupt) {
      readout_gradient(network.problem(), r.y.get(), objective, {dy.get(), dw_ho.get(), nullptr},
                       {threads, true}, interrupt);
    });
    CHECK(is_canary(dy[0]));
  }
}

// Of seconds, and of more with threads for which there are no CPUs, little is left once a call is
// told to end. Others' work may hold up one call, hardly three.
void a_call_ends_soon_after_it_is_told_to() {
  const Network<float> network(Cells::tanh, {8000, 1, 1, 2048, 1}, Biases::both, 7);
  Results<float> r(network);
  const Objective<float> objective = network.objective({LossId::squared_error, -1, false});
  for (int threads : {1, 3}) {
    double soonest = 1e9;
    for (int n = 0; n < 3; ++n) {
      Interrupt interrupt(stop);
      const auto start = Clock::now();
      value_and_grad(network.problem(), objective, r.gradients(true, true), {}, {}, {threads, true},
                     interrupt);
      const std::chrono::duration<double> seconds = Clock::now() - start;
      CHECK(interrupt.stopped());
      soonest = std::min(soonest, seconds.count());
    }
    CHECK_AT_MOST(soonest, 0.5);
  }
}

// There are steps, but nothing to compute in them.
void an_empty_batch_takes_no_time() {
  const Network<float> network(Cells::tanh, {10'000'000'000, 0, 1, 1, 1}, Biases::both, 7);
  Results<float> r(network);
  Interrupt interrupt(go_on);
  const auto start = Clock::now();
  value_and_grad(network.problem(), network.objective({LossId::squared_error, -1, false}),
                 r.gradients(true, true), {}, {}, {2, true}, interrupt);
  const std::chrono::duration<double> seconds = Clock::now() - start;
  CHECK_AT_MOST(seconds.count(), 1.0);
}

void a_call_that_may_go_on_does() {
  const Network<float> network(Cells::tanh, {400, 32, 8, 256, 1}, Biases::both, 8);
  const Results<float> expected = run_both(network, 1);
  Results<float> r(network);
  times_asked = 0;
  Interrupt interrupt(go_on);
  const auto start = Clock::now();
  while (times_asked == 0 && Clock::now() - start < std::chrono::seconds(20)) {
    forward(network.problem(), r.record(), r.last_state(), {2, true}, interrupt);
  }
  CHECK_AT_MOST(1, times_asked);
  CHECK(!interrupt.stopped());
  CHECK(r.y.same_bits_as(expected.y));
}

void a_stopped_call_can_be_followed_by_another() {
  const Network<float> network(Cells::tanh, {50, 16, 8, 64, 1}, Biases::both, 9);
  const Results<float> before = run_both(network, 2);
  Interrupt interrupt(stop);
  while (!interrupt.stopped()) interrupt.progress(10'000'000);
  Results<float> r(network);
  forward(network.problem(), r.record(), r.last_state(), {2, true}, interrupt);
  CHECK(run_both(network, 2).y.same_bits_as(before.y));
}

}  // namespace
}  // namespace bptt::test

int main(int argc, char** argv) {
  using namespace bptt::test;
  return run_tests_on_isa(
      argc, argv,
      {{"long calls end early", long_calls_end_early},
       {"a long readout ends early", a_long_readout_ends_early},
       {"a long readout alone ends early", a_long_readout_alone_ends_early},
       {"a call ends soon after it is told to", a_call_ends_soon_after_it_is_told_to},
       {"an empty batch takes no time", an_empty_batch_takes_no_time},
       {"a call that may go on does", a_call_that_may_go_on_does},
       {"a stopped call can be followed by another", a_stopped_call_can_be_followed_by_another}});
}
