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
      w_ih_(kernels, kernels.product_width, problem.hidden, problem.inputs),
      w_hh_(kernels, kernels.product_width, problem.hidden, problem.hidden),
      bias_(padded_hidden_) {
  for (Index h = 0; h < problem.hidden; ++h) {
    bias_.get()[h] = (problem.b_ih ? problem.b_ih[h] : T(0)) +  //
                     (problem.b_hh ? problem.b_hh[h] : T(0));
  }
  if (plan.project_first) {
    projected_ =
        Buffer<T>(std::min(plan.block_steps, problem.steps) * problem.batch * padded_hidden_);
  }
}

template <class T>
bool ForwardPass<T>::run(int member) {
  const Problem<T>& p = problem_;
  w_ih_.pack({p.w_ih, p.inputs, 1, p.inputs}, 0, member, plan_.threads);
  w_hh_.pack({p.w_hh, p.hidden, 1, p.hidden}, 0, member, plan_.threads);
  if (!barrier_.wait()) return false;
  const Range rows = plan_.rows_of(member, shape_);
  const Range units = plan_.units_of(member, shape_, kernels_.product_width);
  const Index step_flops = 2 * rows.size() * units.size() * (p.inputs + p.hidden);
  for (Index first = 0; first < p.steps; first += plan_.block_steps) {
    const Index last = std::min(first + plan_.block_steps, p.steps);
    if (plan_.project_first) project(first, last, units);
    for (Index t = first; t < last; ++t) {
      step(t, first, rows, units);
      if (plan_.split == Split::hidden && !barrier_.wait()) return false;
      if (member == 0) interrupt_.progress(step_flops);
      if (interrupt_.stopped()) return false;
    }
  }
  return true;
}

// b + W_x x_t for the steps [first, last), of this member's units.
template <class T>
void ForwardPass<T>::project(Index first, Index last, Range units) {
  const Problem<T>& p = problem_;
  const Index lanes = kernels_.lanes;
  const T* x = p.x + first * p.batch * p.inputs;
  kernels_.product({(last - first) * p.batch,
                    p.hidden,
                    units.begin,
                    units.end,
                    {bias_.get(), lanes, 0},
                    {{{x, lanes, p.inputs}, p.inputs, w_ih_.get()}, {}},
                    {projected_.get(), lanes, padded_hidden_}});
}

// S_t of this member's rows and units; `first` is the block's first step.
template <class T>
void ForwardPass<T>::step(Index t, Index first, Range rows, Range units) {
  const Problem<T>& p = problem_;
  const Index lanes = kernels_.lanes;
  const Index row = t * p.batch + rows.begin;
  const T* previous = (t == 0 ? p.state : y_ + (t - 1) * p.batch * p.hidden);
  const Strips<T> out{y_ + row * p.hidden, lanes, p.hidden};
  Product<T> product{rows.size(), p.hidden, units.begin, units.end, {}, {}, out};
  if (plan_.project_first) {
    product.init = {projected_.get() + (t - first) * p.batch * padded_hidden_, lanes,
                    padded_hidden_};
  } else {
    product.init = {bias_.get(), lanes, 0};
    product.segments[0] = {{p.x + row * p.inputs, lanes, p.inputs}, p.inputs, w_ih_.get()};
  }
  product.segments[1] = {
      {previous + rows.begin * p.hidden, lanes, p.hidden}, p.hidden, w_hh_.get()};
  kernels_.product(product);
  Pointwise<T> pointwise{rows.size(), units.begin, units.end, {}, out, {}, {}};
  if (t + 1 < p.steps) {
    pointwise.next_write = {out.data + p.batch * p.hidden, out.strip_stride, out.row_stride};
  }
  kernels_.cells[static_cast<int>(p.cell)].forward(pointwise);
}

template class ForwardPass<float>;
template class ForwardPass<double>;

}  // namespace bptt
