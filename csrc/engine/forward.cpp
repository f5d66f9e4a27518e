#include "engine/forward.h"

#include <algorithm>

namespace bptt {

template <class T>
ForwardPass<T>::ForwardPass(const Problem<T>& problem, const Kernels<T>& kernels, const Plan& plan,
                            const Record<T>& record, Barrier& barrier, Interrupt& interrupt)
    : problem_(problem),
      kernels_(kernels),
      plan_(plan),
      shape_{problem.steps, problem.batch, problem.inputs, problem.hidden},
      cell_(shape_of(problem.cell)),
      record_(record),
      barrier_(barrier),
      interrupt_(interrupt),
      sums_(problem, kernels),
      block_rows_(std::min(plan.block_steps, problem.steps) * problem.batch),
      blocks_((problem.steps + plan.block_steps - 1) / plan.block_steps) {
  if (plan.project_first) projected_ = Buffer<T>(2 * block_rows_ * sums_.padded());
}

template <class T>
bool ForwardPass<T>::run(int member) {
  sums_.pack(member, plan_.threads);
  if (!barrier_.wait()) return false;
  const bool done = plan_.split == Split::pipeline ? run_pipeline(member) : run_blocks(member);
  return done && barrier_.wait();
}

template <class T>
bool ForwardPass<T>::run_blocks(int member) {
  const Range mine =
      plan_.split == Split::rows ? plan_.rows_of(member, shape_) : Range{0, problem_.batch};
  const Range units = plan_.units_of(member, shape_, kernels_.product_width);
  for (Index first = mine.begin; first < mine.end; first += plan_.rows_at_once) {
    const Range rows{first, std::min(first + plan_.rows_at_once, mine.end)};
    for (Index number = 0; number < blocks_; ++number) {
      if (plan_.project_first) sums_.project(block_at(number), units, projected(number));
      if (!recur(number, rows, units)) return false;
    }
  }
  return true;
}

// One member recurs through a block, while the other projects the inputs of the next.
template <class T>
bool ForwardPass<T>::run_pipeline(int member) {
  const Range rows{0, problem_.batch}, units{0, problem_.hidden};
  for (Index number = -1; number < blocks_; ++number) {
    if (plan_.recurs(member)) {
      if (number >= 0 && !recur(number, rows, units)) return false;
    } else if (number + 1 < blocks_) {
      sums_.project(block_at(number + 1), units, projected(number + 1));
    }
    if (!barrier_.wait()) return false;
  }
  return true;
}

// The steps of a block.
template <class T>
Range ForwardPass<T>::block_at(Index number) const {
  const Index first = number * plan_.block_steps;
  return {first, std::min(first + plan_.block_steps, problem_.steps)};
}

template <class T>
T* ForwardPass<T>::projected(Index number) {
  return projected_.get() + number % 2 * block_rows_ * sums_.padded();
}

// Every step of a block, of some rows and units; false if interrupted.
template <class T>
bool ForwardPass<T>::recur(Index number, Range rows, Range units) {
  const Problem<T>& p = problem_;
  const Range block = block_at(number);
  const Index step_flops = 2 * rows.size() * units.size() * cell_.gates * (p.inputs + p.hidden);
  Step step = step_at(block.begin, plan_.project_first ? projected(number) : nullptr, rows, units);
  for (Index t = block.begin; t < block.end; ++t) {
    run_step(step);
    if (plan_.split == Split::hidden && !barrier_.wait()) return false;
    interrupt_.progress(step_flops);
    if (interrupt_.stopped()) return false;
    advance(step, t + 1);
  }
  return true;
}

// The calls of a step.
template <class T>
struct ForwardPass<T>::Step {
  StepProducts<T> sums;
  T* y;                    // where S_t goes
  Pointwise<T> pointwise;  // of an Elman cell
  GatesForward<T> gates;   // of a gated one
};

template <class T>
void ForwardPass<T>::run_step(const Step& step) const {
  step.sums.run(kernels_);
  const CellKernels<T>& cell = kernels_.cells[static_cast<int>(problem_.cell)];
  cell_.gated() ? cell.gates_forward(step.gates) : cell.forward(step.pointwise);
}

// S_t of this member's rows and units; `projected` is the block's, or null.
template <class T>
typename ForwardPass<T>::Step ForwardPass<T>::step_at(Index t, const T* projected, Range rows,
                                                      Range units) const {
  const Problem<T>& p = problem_;
  const Index row = t * p.batch + rows.begin;
  const T* previous = t == 0 ? p.state : record_.y + (t - 1) * p.batch * p.hidden;
  T* const y = record_.y + row * p.hidden;
  Step step{sums_.at(t, previous, projected, rows, units, y), y, {}, {}};
  if (cell_.gated()) {
    const bool two = cell_.states > 1;
    step.gates = sums_.gates_at(t, two ? record_.c : record_.y, projected, rows, units);
    step.gates.y = y;
    step.gates.c = two ? record_.c + row * p.hidden : nullptr;
    step.gates.saved = record_.saved ? record_.saved + row * cell_.saved * p.hidden : nullptr;
    step.gates.next_rows = t + 1 < p.steps ? p.batch : 0;
  } else {
    const Strips<T> out{y, kernels_.lanes, p.hidden};
    step.pointwise = {rows.size(), units.begin, units.end, {}, out};
    step.pointwise.next_values = out;
    if (t + 1 < p.steps) step.pointwise.next_values.data += p.batch * p.hidden;
  }
  return step;
}

// Makes the step before t that of t, if there is one.
template <class T>
void ForwardPass<T>::advance(Step& step, Index t) const {
  const Problem<T>& p = problem_;
  if (t >= p.steps) return;
  const Index state = p.batch * p.hidden;
  step.sums.advance(step.y, p.batch);
  step.y += state;
  if (cell_.gated()) {
    GatesForward<T>& gates = step.gates;
    gates.previous = cell_.states > 1 ? gates.c : gates.y;
    gates.y += state;
    if (gates.c) gates.c += state;
    if (gates.saved) gates.saved += state * cell_.saved;
    gates.next_rows = t + 1 < p.steps ? p.batch : 0;
    if (cell_.apart && plan_.project_first) gates.sums += p.batch * sums_.padded();
  } else {
    step.sums.products[0].out.data = step.pointwise.values.data = step.y;
    if (t + 1 < p.steps) step.pointwise.next_values.data += state;
  }
}

template class ForwardPass<float>;
template class ForwardPass<double>;

}  // namespace bptt
