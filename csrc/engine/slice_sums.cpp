#include "engine/slice_sums.h"

#include <algorithm>
#include <cmath>
#include <new>

namespace bptt {

void CompensatedSum::add(double term) {
  const double sum = sum_ + term;
  rounded_off_ += std::abs(sum_) >= std::abs(term) ? (sum_ - sum) + term : (term - sum) + sum_;
  sum_ = sum;
}

double CompensatedSum::value() const {
  return std::isfinite(rounded_off_) ? sum_ + rounded_off_ : sum_;
}

template <class T>
SliceSums<T>::SliceSums(const Problem<T>& problem, const Kernels<T>& kernels,
                        const Gradients<T>& gradients, Index outputs, Index slices)
    : gradients_(gradients),
      lanes_(kernels.lanes),
      w_ih_(shape_of(problem.cell).gates * problem.hidden * problem.inputs),
      w_hh_(shape_of(problem.cell).gates * problem.hidden * problem.hidden),
      b_ih_(shape_of(problem.cell).gates * problem.hidden),
      b_hh_(b_ih_),
      w_ho_(outputs * problem.hidden),
      b_o_(outputs),
      slice_size_(round_up(w_ih_ + w_hh_ + b_ih_ + b_hh_ + w_ho_ + b_o_, kernels.lanes)),
      slices_(std::max<Index>(1, slices)),
      sums_((slices_ - 1) * slice_size_),
      losses_(slices_) {}

template <class T>
template <class F>
void SliceSums<T>::for_each_part(F&& f) const {
  const Gradients<T>& g = gradients_;
  Index offset = 0;
  for (Part part : {Part{g.w_ih, 0, w_ih_}, Part{g.w_hh, 0, w_hh_}, Part{g.b_ih, 0, b_ih_},
                    Part{g.b_hh, 0, b_hh_}, Part{g.w_ho, 0, w_ho_}, Part{g.b_o, 0, b_o_}}) {
    part.offset = offset;
    offset += part.size;
    if (part.gradient) f(part);
  }
}

template <class T>
void SliceSums<T>::clear(int member, int members) {
  if (member == 0) {
    for (Index slice = 0; slice < slices_; ++slice) new (&losses_.get()[slice]) CompensatedSum;
  }
  if (gradients_.write == Write::overwrite) {
    for_each_part([&](const Part& part) {
      const Range mine = share(part.size, lanes_, member, members);
      std::fill(part.gradient + mine.begin, part.gradient + mine.end, T(0));
    });
  }
  const Range mine = share((slices_ - 1) * slice_size_, lanes_, member, members);
  std::fill(sums_.get() + mine.begin, sums_.get() + mine.end, T(0));
}

template <class T>
Gradients<T> SliceSums<T>::of(Index slice) {
  if (slice == 0) return gradients_;
  T* const w_ih = sums_.get() + (slice - 1) * slice_size_;
  T* const w_hh = w_ih + w_ih_;
  T* const b_ih = w_hh + w_hh_;
  T* const b_hh = b_ih + b_ih_;
  T* const w_ho = b_hh + b_hh_;
  const Gradients<T>& g = gradients_;
  const auto if_wanted = [](const T* gradient, T* sum) { return gradient ? sum : nullptr; };
  return {nullptr,
          nullptr,
          nullptr,
          if_wanted(g.w_ih, w_ih),
          if_wanted(g.w_hh, w_hh),
          if_wanted(g.b_ih, b_ih),
          if_wanted(g.b_hh, b_hh),
          if_wanted(g.w_ho, w_ho),
          if_wanted(g.b_o, w_ho + w_ho_),
          Write::add};
}

template <class T>
void SliceSums<T>::reduce(int member, int members) {
  for_each_part([&](const Part& part) {
    const Range mine = share(part.size, lanes_, member, members);
    for (Index slice = 1; slice < slices_; ++slice) {
      const T* sum = sums_.get() + (slice - 1) * slice_size_ + part.offset;
      for (Index i = mine.begin; i < mine.end; ++i) part.gradient[i] += sum[i];
    }
  });
}

template <class T>
double SliceSums<T>::loss() const {
  CompensatedSum total;
  for (Index slice = 0; slice < slices_; ++slice) total.add(losses_.get()[slice].value());
  return total.value();
}

template class SliceSums<float>;
template class SliceSums<double>;

}  // namespace bptt
