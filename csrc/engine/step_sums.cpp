#include "engine/step_sums.h"

#include <algorithm>

namespace bptt {

template <class T>
StepSums<T>::StepSums(const Problem<T>& problem, const Kernels<T>& kernels)
    : problem_(problem),
      kernels_(kernels),
      cell_(shape_of(problem.cell)),
      padded_(cell_.gates * round_up(problem.hidden, kernels.lanes)),
      w_ih_(kernels, kernels.product_width, problem.hidden, problem.inputs, cell_.gates),
      w_hh_(kernels, kernels.product_width, problem.hidden, problem.hidden, cell_.gates),
      bias_((cell_.apart ? 2 : 1) * padded_) {
  if (cell_.gated()) sums_ = Buffer<T>((cell_.apart ? 2 : 1) * problem.batch * padded_);
}

template <class T>
void StepSums<T>::pack(int member, int members) {
  const Problem<T>& p = problem_;
  w_ih_.pack({p.w_ih, p.inputs, 1, p.inputs}, 0, member, members);
  w_hh_.pack({p.w_hh, p.hidden, 1, p.hidden}, 0, member, members);
  if (member > 0) return;
  const Index lanes = kernels_.lanes;
  T *const b_ih = bias_.get(), *const b_hh = cell_.apart ? b_ih + padded_ : b_ih;
  std::fill_n(b_ih, (cell_.apart ? 2 : 1) * padded_, T(0));
  for (Index g = 0; g < cell_.gates; ++g) {
    for (Index h = 0; h < p.hidden; ++h) {
      const Index sum = (h / lanes * cell_.gates + g) * lanes + h % lanes;
      if (p.b_ih) b_ih[sum] = p.b_ih[g * p.hidden + h];
      if (p.b_hh) b_hh[sum] += p.b_hh[g * p.hidden + h];
    }
  }
}

// The sums of some units: of all their gates.
template <class T>
Range StepSums<T>::columns(Range units) const {
  const bool last = units.end == problem_.hidden;
  return {units.begin * cell_.gates, last ? padded_ : units.end * cell_.gates};
}

template <class T>
void StepSums<T>::project(Range steps, Range units, T* projected) const {
  const Problem<T>& p = problem_;
  const Index lanes = kernels_.lanes;
  const Range sums = columns(units);
  const T* x = p.x + steps.begin * p.batch * p.inputs;
  kernels_.product({steps.size() * p.batch,
                    padded_,
                    sums.begin,
                    sums.end,
                    {bias_.get(), lanes, 0},
                    {{{x, lanes, p.inputs}, p.inputs, w_ih_.get()}},
                    {projected, lanes, padded_}});
}

// One product, or where both parts go apart one of each, unless the first was done ahead.
template <class T>
StepProducts<T> StepSums<T>::at(Index t, const T* previous, const T* projected, Range rows,
                                Range units, T* y) const {
  const Problem<T>& p = problem_;
  const Index lanes = kernels_.lanes;
  const Range sums = columns(units);
  const T* const x = p.x + (t * p.batch + rows.begin) * p.inputs;
  const typename Product<T>::Segment inputs{{x, lanes, p.inputs}, p.inputs, w_ih_.get()};
  const typename Product<T>::Segment states{
      {previous + rows.begin * p.hidden, lanes, p.hidden}, p.hidden, w_hh_.get()};
  Product<T> product{rows.size(), padded_, sums.begin, sums.end, {bias_.get(), lanes, 0}, {}, {}};
  product.out = {row(rows.begin), lanes, padded_};
  if (!cell_.gated()) {
    product.columns = p.hidden;
    product.out = {y, lanes, p.hidden};
  }
  if (cell_.apart) {
    Product<T> recurrent = product;
    recurrent.init.data += padded_;
    recurrent.out.data += p.batch * padded_;
    recurrent.segments[1] = states;
    product.segments[0] = inputs;
    return projected ? StepProducts<T>{{recurrent}, 1} : StepProducts<T>{{product, recurrent}, 2};
  }
  if (projected) {
    product.init = {projected + rows.begin * padded_, lanes, padded_};
  } else {
    product.segments[0] = inputs;
  }
  product.segments[1] = states;
  return {{product}, 1};
}

template <class T>
GatesForward<T> StepSums<T>::gates_at(Index t, const T* history, const T* projected, Range rows,
                                      Range units) const {
  const Problem<T>& p = problem_;
  const T* const initial = cell_.states > 1 ? p.c : p.state;
  const T* const before = t == 0 ? initial : history + (t - 1) * p.batch * p.hidden;
  GatesForward<T> gates{};
  gates.rows = rows.size();
  gates.begin = units.begin;
  gates.end = units.end;
  gates.hidden = p.hidden;
  gates.sums = cell_.apart && projected ? projected + rows.begin * padded_ : row(rows.begin);
  gates.recurrent = cell_.apart ? row(p.batch + rows.begin) : nullptr;
  gates.sums_stride = padded_;
  gates.previous = before + rows.begin * p.hidden;
  return gates;
}

template class StepSums<float>;
template class StepSums<double>;

}  // namespace bptt
