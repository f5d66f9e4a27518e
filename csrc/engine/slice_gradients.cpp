#include "engine/slice_gradients.h"

#include <algorithm>
#include <cmath>
#include <new>

#include "engine/block.h"

namespace bptt {

namespace {

// Where so many values are that the calls of a pass hand on, or those of this call alone.
template <class T, class Value>
Value* carried_or_scratch(Carried<T>* carried, Value* (Carried<T>::*of)(Index), Index count) {
  return carried ? (carried->*of)(count) : Buffer<Value>(count).get();
}

template <class T>
Index rows_of_gates(const Call<T>& call) {
  return call.problem.cell.gates * call.problem.hidden;
}

// Values of one that is wanted.
template <class T>
Index size_of(const T* gradient, Index rows, Index columns) {
  return gradient ? rows * columns : 0;
}

// Whether each row keeps its place for its sums: if not, rows that are not on their way at the same
// time share one.
bool keep_places(const Plan& plan, bool in_segments) {
  return in_segments || plan.threads * plan.rows_at_once >= plan.shape.sequence.batch;
}

// Where the sums of each row are held until its norm is taken.
std::vector<Index> places_of_rows(const Plan& plan, bool in_segments) {
  std::vector<Index> places(static_cast<std::size_t>(plan.shape.sequence.batch));
  const bool kept = keep_places(plan, in_segments);
  for (int member = 0; member < plan.threads; ++member) {
    for_each_group(plan, member, [&](const Group&, Range rows) {
      for (Index row = rows.begin; row < rows.end; ++row) {
        places[static_cast<std::size_t>(row)] =
            kept ? row : member * plan.rows_at_once + row - rows.begin;
      }
      return true;
    });
  }
  return places;
}

// How many slices have their sums in scratch.
Index held_slices(const Plan& plan, OfRows of_rows, bool in_segments) {
  if (of_rows == OfRows::each) return 0;
  if (of_rows == OfRows::sum) return std::max<Index>(1, plan.slices()) - 1;
  return keep_places(plan, in_segments) ? plan.shape.sequence.batch
                                        : plan.threads * plan.rows_at_once;
}

// Partial sums of every so many values: in one order, whatever vectors there are.
constexpr Index kPartialSums = 16;

template <class T>
double sum_of_squares(const T* values, Index count, double scale) {
  double partial[kPartialSums] = {};
  const auto add = [&](Index i, Index sum) {
    const double value = scale * static_cast<double>(values[i]);
    partial[sum] += value * value;
  };
  const Index whole = count / kPartialSums * kPartialSums;
  for (Index i = 0; i < whole; i += kPartialSums) {
    for (Index sum = 0; sum < kPartialSums; ++sum) add(i + sum, sum);
  }
  for (Index i = whole; i < count; ++i) add(i, i - whole);
  double total = 0;
  for (const double sum : partial) total += sum;
  return total;
}

// Of Frobenius; scaled where squares of float64 would leave its range.
template <class T>
T norm(const T* values, Index count) {
  constexpr double kLeast = 1e-280, kMost = 1e280, kScale = 0x1p+600;
  const double squares = sum_of_squares(values, count, 1.0);
  if (squares > kLeast && squares < kMost) return static_cast<T>(std::sqrt(squares));
  const double scale = squares >= kMost ? 1 / kScale : kScale;
  return static_cast<T>(std::sqrt(sum_of_squares(values, count, scale)) / scale);
}

}  // namespace

template <class T>
SliceGradients<T>::SliceGradients(const Call<T>& call, const Gradients<T>& gradients,
                                  bool in_segments, Carried<T>* carried)
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
      batch_(call.problem.sequence.batch),
      places_(gradients.of_rows == OfRows::norm ? places_of_rows(call.plan, in_segments)
                                                : std::vector<Index>()),
      resumed_(carried && carried->begun()),
      sums_(
          carried_or_scratch(carried, &Carried<T>::sums,
                             held_slices(call.plan, gradients.of_rows, in_segments) * slice_size_)),
      losses_(carried_or_scratch(carried, &Carried<T>::losses, slices_)) {}

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
  if (resumed_) return;
  if (member.index == 0) {
    for (Index slice = 0; slice < slices_; ++slice) new (&losses_[slice]) CompensatedSum;
  }
  if (gradients_.of_rows == OfRows::norm) return;  // rows are cleared when they begin
  if (gradients_.write == Write::overwrite) {
    const Index arrays = gradients_.of_rows == OfRows::each ? batch_ : 1;
    for_each_array([&](const Array& array) {
      const Range mine = member.share(arrays * array.size, lanes_);
      std::fill(array.gradient + mine.begin, array.gradient + mine.end, T(0));
    });
  }
  if (gradients_.of_rows == OfRows::each) return;
  const Range mine = member.share((slices_ - 1) * slice_size_, lanes_);
  std::fill(sums_ + mine.begin, sums_ + mine.end, T(0));
}

template <class T>
Gradients<T> SliceGradients<T>::of(Index slice) {
  switch (gradients_.of_rows) {
    case OfRows::each: return in_arrays(slice);
    case OfRows::norm: return in_sums(places_[static_cast<std::size_t>(slice)]);
    case OfRows::sum: break;
  }
  return slice == 0 ? gradients_ : in_sums(slice - 1);
}

// The caller's arrays of one row.
template <class T>
Gradients<T> SliceGradients<T>::in_arrays(Index row) const {
  Gradients<T> g = gradients_;
  const auto advance = [&](T*& gradient, Index size) {
    if (gradient) gradient += row * size;
  };
  advance(g.w_ih, w_ih_);
  advance(g.w_hh, w_hh_);
  advance(g.b_ih, b_ih_);
  advance(g.b_hh, b_hh_);
  advance(g.w_ho, w_ho_);
  advance(g.b_o, b_o_);
  return g;
}

template <class T>
Gradients<T> SliceGradients<T>::in_sums(Index place) {
  T* const w_ih = sums_ + place * slice_size_;
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
void SliceGradients<T>::begin(Range rows) {
  if (gradients_.of_rows != OfRows::norm) return;
  for (Index row = rows.begin; row < rows.end; ++row) {
    std::fill_n(sums_ + places_[static_cast<std::size_t>(row)] * slice_size_, slice_size_, T(0));
  }
}

template <class T>
void SliceGradients<T>::end(Range rows) {
  if (gradients_.of_rows != OfRows::norm) return;
  for (Index row = rows.begin; row < rows.end; ++row) {
    const T* const sums = sums_ + places_[static_cast<std::size_t>(row)] * slice_size_;
    for_each_array(
        [&](const Array& array) { array.gradient[row] = norm(sums + array.offset, array.size); });
  }
}

template <class T>
void SliceGradients<T>::reduce(Member member) {
  if (gradients_.of_rows != OfRows::sum) return;
  for_each_array([&](const Array& array) {
    const Range mine = member.share(array.size, lanes_);
    for (Index slice = 1; slice < slices_; ++slice) {
      const T* sum = sums_ + (slice - 1) * slice_size_ + array.offset;
      for (Index i = mine.begin; i < mine.end; ++i) array.gradient[i] += sum[i];
    }
  });
}

template <class T>
double SliceGradients<T>::loss() const {
  CompensatedSum total;
  for (Index slice = 0; slice < slices_; ++slice) total.add(losses_[slice].value());
  return total.value();
}

template class SliceGradients<float>;
template class SliceGradients<double>;

}  // namespace bptt
