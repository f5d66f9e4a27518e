#include "engine/forward.h"

#include <algorithm>

namespace bptt {

template <class T>
ForwardPass<T>::ForwardPass(const Problem<T>& problem, const Kernels<T>& kernels, const Plan& plan,
                            T* y, Barrier& barrier, Interrupt& interrupt)
    : problem_(problem),
      kernels_(kernels),
      plan_(plan),
      shape_{problem.steps, problem.batch, problem.inputs, problem.hidden},
      y_(y),
      barrier_(barrier),
      interrupt_(interrupt),
      padded_hidden_(round_up(problem.hidden, kernels.lanes)),
      block_rows_(std::min(plan.block_steps, problem.steps) * problem.batch),
      blocks_((problem.steps + plan.block_steps - 1) / plan.block_steps),
      w_ih_(kernels, kernels.product_width, problem.hidden, problem.inputs),
      w_hh_(kernels, kernels.product_width, problem.hidden, problem.hidden),
      bias_(padded_hidden_) {
  if (plan.project_first) projected_ = Buffer<T>(2 * block_rows_ * padded_hidden_);
}

template <class T>
bool ForwardPass<T>::run(int member) {
  pack_weights(member);
  if (!barrier_.wait()) return false;
  const bool done = plan_.split == Split::pipeline ? run_pipeline(member) : run_blocks(member);
  return done && barrier_.wait();
}

template <class T>
void ForwardPass<T>::pack_weights(int member) {
  const Problem<T>& p = problem_;
  w_ih_.pack({p.w_ih, p.inputs, 1, p.inputs}, 0, member, plan_.threads);
  w_hh_.pack({p.w_hh, p.hidden, 1, p.hidden}, 0, member, plan_.threads);
  if (member > 0) return;
  for (Index h = 0; h < p.hidden; ++h) {
    bias_.get()[h] = (p.b_ih ? p.b_ih[h] : T(0)) + (p.b_hh ? p.b_hh[h] : T(0));
  }
}

template <class T>
bool ForwardPass<T>::run_blocks(int member) {
  const Range mine =
      plan_.split == Split::rows ? plan_.rows_of(member, shape_) : Range{0, problem_.batch};
  const Range units = plan_.units_of(member, shape_, kernels_.product_width);
  for (Index first = mine.begin; first < mine.end; first += plan_.rows_at_once) {
    const Range rows{first, std::min(first + plan_.rows_at_once, mine.end)};
    for (Index number = 0; number < blocks_; ++number) {
      if (plan_.project_first) project(number, units);
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
      project(number + 1, units);
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
  return projected_.get() + number % 2 * block_rows_ * padded_hidden_;
}

// Every step of a block, of some rows and units; false if interrupted.
template <class T>
bool ForwardPass<T>::recur(Index number, Range rows, Range units) {
  const Problem<T>& p = problem_;
  const Range block = block_at(number);
  const Index step_flops = 2 * rows.size() * units.size() * (p.inputs + p.hidden);
  const auto activate = kernels_.cells[static_cast<int>(p.cell)].forward;
  Step step = step_at(block.begin, plan_.project_first ? projected(number) : nullptr, rows, units);
  for (Index t = block.begin; t < block.end; ++t) {
    kernels_.product(step.product);
    activate(step.pointwise);
    if (plan_.split == Split::hidden && !barrier_.wait()) return false;
    interrupt_.progress(step_flops);
    if (interrupt_.stopped()) return false;
    advance(step, t + 1);
  }
  return true;
}

// b + W_x x_t for the steps of a block, of this member's units.
template <class T>
void ForwardPass<T>::project(Index number, Range units) {
  const Problem<T>& p = problem_;
  const Index lanes = kernels_.lanes;
  const Range block = block_at(number);
  const T* x = p.x + block.begin * p.batch * p.inputs;
  kernels_.product({block.size() * p.batch,
                    p.hidden,
                    units.begin,
                    units.end,
                    {bias_.get(), lanes, 0},
                    {{{x, lanes, p.inputs}, p.inputs, w_ih_.get()}, {}},
                    {projected(number), lanes, padded_hidden_}});
}

// The two calls of a step. They are prepared once a block, and moved from step to step: with few
// rows a step takes no longer than it would take to prepare them.
template <class T>
struct ForwardPass<T>::Step {
  Product<T> product;
  Pointwise<T> pointwise;
};

// S_t of this member's rows and units; `projected` is the step's, or null.
template <class T>
typename ForwardPass<T>::Step ForwardPass<T>::step_at(Index t, const T* projected, Range rows,
                                                      Range units) const {
  const Problem<T>& p = problem_;
  const Index lanes = kernels_.lanes;
  const Index row = t * p.batch + rows.begin;
  const T* previous = t == 0 ? p.state : y_ + (t - 1) * p.batch * p.hidden;
  const Strips<T> out{y_ + row * p.hidden, lanes, p.hidden};
  Product<T> product{rows.size(), p.hidden, units.begin, units.end, {}, {}, out};
  if (projected) {
    product.init = {projected, lanes, padded_hidden_};
  } else {
    product.init = {bias_.get(), lanes, 0};
    product.segments[0] = {{p.x + row * p.inputs, lanes, p.inputs}, p.inputs, w_ih_.get()};
  }
  product.segments[1] = {
      {previous + rows.begin * p.hidden, lanes, p.hidden}, p.hidden, w_hh_.get()};
  Step step{product, {rows.size(), units.begin, units.end, {}, out}};
  step.pointwise.next_values = out;
  if (t + 1 < p.steps) step.pointwise.next_values.data += p.batch * p.hidden;
  return step;
}

// Makes the step before t that of t, if there is one.
template <class T>
void ForwardPass<T>::advance(Step& step, Index t) const {
  const Problem<T>& p = problem_;
  if (t >= p.steps) return;
  step.product.init.data += p.batch * step.product.init.row_stride;
  if (step.product.segments[0].a.data) step.product.segments[0].a.data += p.batch * p.inputs;
  step.product.segments[1].a.data = step.product.out.data;
  step.product.out.data += p.batch * p.hidden;
  step.pointwise.values.data = step.product.out.data;
  if (t + 1 < p.steps) step.pointwise.next_values.data += p.batch * p.hidden;
}

template class ForwardPass<float>;
template class ForwardPass<double>;

}  // namespace bptt
