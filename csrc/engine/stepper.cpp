#include "engine/stepper.h"

#include <algorithm>
#include <utility>

#include "dispatch/dispatch.h"
#include "engine/crew.h"
#include "engine/forward.h"

namespace bptt {
namespace {

// A pass writes c of all its steps. This bounds the memory that they take: a longer call goes in
// pieces.
constexpr Index kBytesOfC = 4 << 20;

}  // namespace

template <class T>
Stepper<T>::Stepper(const Problem<T>& layer, bool flush_subnormals)
    : kernels_(kernel_table().of<T>()),
      flush_subnormals_(flush_subnormals),
      problem_(layer),
      sums_(memory_.make([&] { return Preactivations<T>(problem_, kernels_); })),
      state_(own_state()),
      next_(own_state()) {
  const FloatEnvironment environment(Execution{1, flush_subnormals}.float_control());
  sums_.pack({0, 1});
  problem_.w_ih = problem_.w_hh = problem_.b_ih = problem_.b_hh = nullptr;  // the caller's
  for (Index b = 0; b < layer.sequence.batch; ++b) assign(b, {layer.state, layer.c}, b);
}

template <class T>
State<T> Stepper<T>::own_state() {
  return memory_.make([&] {
    const Index size = problem_.sequence.batch * problem_.hidden;
    State<T> state{Buffer<T>(size).get(), nullptr};
    if (problem_.cell.states > 1) state.c = Buffer<T>(size).get();
    return state;
  });
}

template <class T>
void Stepper<T>::run(const T* x, Index steps, T* y, int threads, Interrupt& interrupt) {
  const Index batch = problem_.sequence.batch, row = batch * problem_.hidden;
  if (row == 0) return;
  const Index bytes_of_c = row * static_cast<Index>(sizeof(T));
  const Index most = problem_.cell.states > 1 ? std::max<Index>(1, kBytesOfC / bytes_of_c) : steps;
  State<T> from = state_;
  for (Index t = 0; t < steps; t += most) {
    problem_.sequence.steps = std::min(most, steps - t);
    problem_.x = x + t * batch * problem_.inputs;
    problem_.state = from.s;
    problem_.c = from.c;
    run_piece(y + t * row, {threads, flush_subnormals_}, interrupt);
    if (interrupt.stopped()) return;
    from = next_;
  }
  if (steps > 0) std::swap(state_, next_);
}

// From the problem's state to the next one.
template <class T>
void Stepper<T>::run_piece(T* y, const Execution& execution, Interrupt& interrupt) {
  Crew<T> crew(problem_, Passes::forward, execution, interrupt, kernels_);
  const Index row = problem_.sequence.batch * problem_.hidden, steps = problem_.sequence.steps;
  Buffer<T> c;
  if (problem_.cell.states > 1) c = Buffer<T>(steps * row);
  ForwardPass<T> pass(crew.call(), {y, c.get(), nullptr}, sums_);
  crew.run([&](int member) { pass.run(member); });
  std::copy_n(y + (steps - 1) * row, row, next_.s);
  if (next_.c) std::copy_n(c.get() + (steps - 1) * row, row, next_.c);
}

template <class T>
void Stepper<T>::assign(Index b, const State<const T>& rows, Index from) {
  const Index size = problem_.hidden;
  const auto copy = [&](const T* part, T* to) {
    if (!to) return;
    if (part) {
      std::copy_n(part + from * size, size, to + b * size);
    } else {
      std::fill_n(to + b * size, size, T(0));
    }
  };
  copy(rows.s, state_.s);
  copy(rows.c, state_.c);
}

template <class T>
Index Stepper<T>::flops(Index steps) const {
  const Shape& s = problem_;
  return 2 * steps * s.sequence.batch * s.cell.gates * s.hidden * (s.inputs + s.hidden);
}

template class Stepper<float>;
template class Stepper<double>;

}  // namespace bptt
