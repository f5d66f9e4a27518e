#include "engine/slice_gradients.h"

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

namespace {

template <class T>
Index rows_of_gates(const Call<T>& call) {
  return call.problem.cell.gates * call.problem.hidden;
}

// Values of one that is wanted.
template <class T>
Index size_of(const T* gradient, Index rows, Index columns) {
  return gradient ? rows * columns : 0;
}

}  // namespace

template <class T>
SliceGradients<T>::SliceGradients(const Call<T>& call, const Gradients<T>& gradients)
    : gradients_(gradients),
      lanes_(call.kernels.lanes),
      w_ih_(size_of(gradients.w_ih, rows_of_gates(call), call.problem.inputs)),
      w_hh_(size_of(gradients.w_hh, rows_of_gates(call), call.problem.hidden)),
      b_ih_(size_of(gradients.b_ih, rows_of_gates(call), 1)),
      b_hh_(size_of(gradients.b_hh, rows_of_gates(call), 1)),
      w_ho_(size_of(gradients.w_ho, call.problem.outputs, call.problem.hidden)),
      b_o_(size_of(gradients.b_o, call.problem.outputs, 1)),
      slice_size_(call.padded(w_ih_ + w_hh_ + b_ih_ + b_hh_ + w_ho_ + b_o_)),
      slices_(std::max<Index>(1, call.plan.slices())),
      sums_((slices_ - 1) * slice_size_),
      losses_(slices_) {}

template <class T>
template <class F>
void SliceGradients<T>::for_each_array(F&& f) const {
  const Gradients<T>& g = gradients_;
  Index offset = 0;
  for (Array array : {Array{g.w_ih, 0, w_ih_}, Array{g.w_hh, 0, w_hh_}, Array{g.b_ih, 0, b_ih_},
                      Array{g.b_hh, 0, b_hh_}, Array{g.w_ho, 0, w_ho_}, Array{g.b_o, 0, b_o_}}) {
    array.offset = offset;
    offset += array.size;
    if (array.gradient) f(array);
  }
}

template <class T>
void SliceGradients<T>::clear(Member member) {
  if (member.index == 0) {
    for (Index slice = 0; slice < slices_; ++slice) new (&losses_.get()[slice]) CompensatedSum;
  }
  if (gradients_.write == Write::overwrite) {
    for_each_array([&](const Array& array) {
      const Range mine = member.share(array.size, lanes_);
      std::fill(array.gradient + mine.begin, array.gradient + mine.end, T(0));
    });
  }
  const Range mine = member.share((slices_ - 1) * slice_size_, lanes_);
  std::fill(sums_.get() + mine.begin, sums_.get() + mine.end, T(0));
}

template <class T>
Gradients<T> SliceGradients<T>::of(Index slice) {
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
void SliceGradients<T>::reduce(Member member) {
  for_each_array([&](const Array& array) {
    const Range mine = member.share(array.size, lanes_);
    for (Index slice = 1; slice < slices_; ++slice) {
      const T* sum = sums_.get() + (slice - 1) * slice_size_ + array.offset;
      for (Index i = mine.begin; i < mine.end; ++i) array.gradient[i] += sum[i];
    }
  });
}

template <class T>
double SliceGradients<T>::loss() const {
  CompensatedSum total;
  for (Index slice = 0; slice < slices_; ++slice) total.add(losses_.get()[slice].value());
  return total.value();
}

template class SliceGradients<float>;
template class SliceGradients<double>;

}  // namespace bptt
