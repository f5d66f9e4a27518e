#include "engine/segments.h"

#include <algorithm>

namespace bptt {

template <class T>
Segments<T>::Segments(const Call<T>& call, const Cut& cut)
    : problem_(call.problem), begins_{0}, step_begins_{0} {
  const Sequence& sequence = problem_.sequence;
  const Group group = call.plan.group({0, sequence.batch});
  const Index blocks = group.blocks();
  Index most_rows = 0;
  for (Index block = 0; block < blocks; ++block) {
    const Index end = group.steps_of(block).end;
    const bool enough = cut.segment_steps > 0 && end - step_begins_.back() >= cut.segment_steps;
    if (!enough && block + 1 < blocks) continue;
    most_rows = std::max(most_rows, sequence.row(end) - sequence.row(step_begins_.back()));
    begins_.push_back(block + 1);
    step_begins_.push_back(end);
  }
  if (blocks == 0) begins_.push_back(0), step_begins_.push_back(0);
  const CellShape& cell = problem_.cell;
  const Index hidden = problem_.hidden;
  front_ = count() > 1 ? sequence.batch : 0;
  y_ = Buffer<T>((front_ + most_rows) * hidden);
  if (cell.states > 1) c_ = Buffer<T>((front_ + most_rows) * hidden);
  if (cell.gated()) saved_ = Buffer<T>(most_rows * cell.saved * hidden);
  group_ = cut.group_segments > 0 ? std::min(cut.group_segments, count()) : count();
  if (count() == 1) return;
  const Index border = cell.states * sequence.batch * hidden;
  group_borders_ = Buffer<T>((count() + group_ - 1) / group_ * border);
  borders_ = Buffer<T>(group_ * border);
}

template <class T>
Range Segments<T>::blocks(Index segment) const {
  const auto i = static_cast<std::size_t>(segment);
  return {begins_[i], begins_[i + 1]};
}

template <class T>
Range Segments<T>::steps(Index segment) const {
  const auto i = static_cast<std::size_t>(segment);
  return {step_begins_[i], step_begins_[i + 1]};
}

template <class T>
Record<T> Segments<T>::record(Index segment) {
  const Index first = problem_.sequence.row(steps(segment).begin), hidden = problem_.hidden;
  const auto from_start = [&](T* data, Index front, Index values) {
    return data ? data + (front - first) * values : nullptr;
  };
  return {from_start(y_.get(), front_, hidden), from_start(c_.get(), front_, hidden),
          from_start(saved_.get(), 0, problem_.cell.saved * hidden)};
}

// The states before it, of each part those of the rows that the step before it has.
template <class T>
T* Segments<T>::border(Index segment) {
  const Index size = problem_.cell.states * problem_.sequence.batch * problem_.hidden;
  const Index first = first_of_group(segment);
  return segment == first ? group_borders_.get() + segment / group_ * size
                          : borders_.get() + (segment - first) * size;
}

// The first value of the step before it, in a record.
template <class T>
Index Segments<T>::before(Index segment) const {
  return problem_.sequence.row(steps(segment).begin - 1) * problem_.hidden;
}

template <class T>
void Segments<T>::begin(Index segment) {
  if (segment == 0) return;
  const Record<T> to = record(segment);
  const Index size = problem_.sequence.active(steps(segment).begin - 1) * problem_.hidden;
  const T* const from = border(segment);
  std::copy_n(from, size, to.y + before(segment));
  if (to.c) std::copy_n(from + size, size, to.c + before(segment));
}

template <class T>
void Segments<T>::end(Index segment, T* last_s, T* last_c) {
  const Record<T> from = record(segment);
  const Range some{segment == 0 ? -1 : steps(segment).begin, steps(segment).end};
  if (last_s) problem_.states(from.y).copy_last(some, last_s);
  if (last_c) carried_states(problem_, read_only(from)).copy_last(some, last_c);
  if (segment + 1 == count()) return;
  const Index size = problem_.sequence.active(some.end - 1) * problem_.hidden;
  T* const to = border(segment + 1);
  std::copy_n(from.y + before(segment + 1), size, to);
  if (from.c) std::copy_n(from.c + before(segment + 1), size, to + size);
}

template class Segments<float>;
template class Segments<double>;

}  // namespace bptt
