#include "engine/preactivations.h"

#include <algorithm>

namespace bptt {

template <class T>
Preactivations<T>::Preactivations(const Problem<T>& problem, const Kernels<T>& kernels, bool far,
                                  Index rows)
    : problem_(problem),
      kernels_(kernels),
      far_(far),
      rows_(std::max(rows, problem.sequence.batch)),
      padded_(problem.cell.gates * round_up(problem.hidden, kernels.lanes)),
      w_ih_(kernels, kernels.product_width, problem.hidden, problem.inputs, problem.cell.gates),
      w_hh_(kernels, kernels.product_width, problem.hidden, problem.hidden, problem.cell.gates),
      bias_((problem.cell.apart ? 2 : 1) * padded_) {
  const Index apart = problem.cell.apart ? 2 : 1;
  if (problem.cell.gated()) sums_ = Buffer<T>(apart * rows_ * padded_);
}

template <class T>
void Preactivations<T>::pack(Member member) {
  const Problem<T>& p = problem_;
  w_ih_.pack({p.w_ih, p.inputs, 1, p.inputs}, 0, member);
  w_hh_.pack({p.w_hh, p.hidden, 1, p.hidden}, 0, member);
  if (member.index > 0) return;
  const Index lanes = kernels_.lanes, gates = p.cell.gates;
  T *const b_ih = bias_.get(), *const b_hh = p.cell.apart ? b_ih + padded_ : b_ih;
  std::fill_n(b_ih, (p.cell.apart ? 2 : 1) * padded_, T(0));
  for (Index g = 0; g < gates; ++g) {
    for (Index h = 0; h < p.hidden; ++h) {
      const Index sum = (h / lanes * gates + g) * lanes + h % lanes;
      if (p.b_ih) b_ih[sum] = p.b_ih[g * p.hidden + h];
      if (p.b_hh) b_hh[sum] += p.b_hh[g * p.hidden + h];
    }
  }
}

// The sums of some units: of all their gates.
template <class T>
Range Preactivations<T>::columns(Range units) const {
  const bool last = units.end == problem_.hidden;
  return {units.begin * problem_.cell.gates, last ? padded_ : units.end * problem_.cell.gates};
}

template <class T>
void Preactivations<T>::project(const T* x, Index rows, Range units, T* projected) const {
  const Problem<T>& p = problem_;
  const Index lanes = kernels_.lanes;
  const Range sums = columns(units);
  kernels_.product({rows,
                    padded_,
                    sums.begin,
                    sums.end,
                    {bias_.get(), lanes, 0},
                    {{{x, lanes, p.inputs}, p.inputs, w_ih_.get()}},
                    {projected, lanes, padded_},
                    {},
                    far_});
}

// One product, or where both parts go apart one of each, unless the first was done ahead.
template <class T>
StepProducts<T> Preactivations<T>::at(Index t, const Strips<const T>& x, const T* previous,
                                      const T* projected, Range rows, Range units, T* y) const {
  const Problem<T>& p = problem_;
  const Index lanes = kernels_.lanes;
  const Range sums = columns(units);
  const typename Product<T>::Segment inputs{x, p.inputs, w_ih_.get()};
  const typename Product<T>::Segment states{{previous, lanes, p.hidden}, p.hidden, w_hh_.get()};
  Product<T> product{rows.size(), padded_, sums.begin, sums.end, {bias_.get(), lanes, 0}, {}, {}};
  product.out = {row(rows.begin), lanes, padded_};
  product.far = far_;
  product.downward = t % 2 != 0;
  if (!p.cell.gated()) {
    product.columns = p.hidden;
    product.out = {y, lanes, p.hidden};
  }
  if (p.cell.apart) {
    Product<T> recurrent = product;
    recurrent.init.data += padded_;
    recurrent.out.data += rows_ * padded_;
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
const T* Preactivations<T>::sums(const T* projected, Index b) const {
  return problem_.cell.apart && projected ? projected + b * padded_ : row(b);
}

template <class T>
const T* Preactivations<T>::recurrent(Index b) const {
  return problem_.cell.apart ? row(rows_ + b) : nullptr;
}

template class Preactivations<float>;
template class Preactivations<double>;

}  // namespace bptt
