#include "sequences/passes.h"

#include "dispatch/dispatch.h"
#include "engine/row_copies.h"
#include "engine/scratch.h"

namespace bptt {
namespace {

// Rows of the caller's arrays as rows of the engine's, and back. Its buffers are of the frame that
// is open.
template <class T>
class Copies {
 public:
  Copies(const RowMap& rows, const Execution& execution) : rows_(rows), execution_(execution) {}

  // (N', values) of an array (T, B, values); null of null.
  const T* gather(const T* array, Index values) const {
    return taken(array, rows_.sources, values);
  }
  // (B', values) of an array (B, values), by an index; null of null.
  const T* taken(const T* array, const std::vector<Index>& index, Index values) const {
    if (!array) return nullptr;
    T* const found = Buffer<T>(size_of(index) * values).get();
    take(array, index, values, found);
    return found;
  }
  // Room for such rows, if there is an array that they will go to.
  T* room(const void* wanted, const std::vector<Index>& index, Index values) const {
    return wanted ? Buffer<T>(size_of(index) * values).get() : nullptr;
  }
  // Writes (T, B, values) of the engine's rows.
  void scatter(const T* rows, Index values, T* out) const { take(rows, rows_.places, values, out); }
  void take(const T* rows, const std::vector<Index>& index, Index values, T* out) const {
    if (!out) return;
    take_rows(reinterpret_cast<const std::byte*>(rows), index.data(), size_of(index),
              values * static_cast<Index>(sizeof(T)), reinterpret_cast<std::byte*>(out),
              execution_);
  }

 private:
  static Index size_of(const std::vector<Index>& index) { return static_cast<Index>(index.size()); }

  const RowMap& rows_;
  const Execution& execution_;
};

template <class T>
Problem<T> problem_of(const Layer<T>& l, const RowMap& rows, const T* x,
                      const State<const T>& initial) {
  const Shape shape{rows.sequence(), l.inputs, l.hidden, 0, shape_of(l.cell)};
  return {shape, l.cell, x, initial.s, initial.c, l.w_ih, l.w_hh, l.b_ih, l.b_hh};
}

template <class T>
Problem<T> gathered(const Layer<T>& l, const RowMap& rows, const Copies<T>& copies) {
  return problem_of(l, rows, copies.gather(l.x, l.inputs),
                    {copies.taken(l.state.s, rows.entering, l.hidden),
                     copies.taken(l.state.c, rows.entering, l.hidden)});
}

}  // namespace

template <class T>
void forward(const Layer<T>& l, const Record<T>& record, const State<T>& last,
             const Execution& execution, Interrupt& interrupt) {
  const Scratch::Frame frame;
  const RowMap rows(l.sequences);
  const CellShape& cell = shape_of(l.cell);
  const Index h = l.hidden;
  if (rows.same) {
    const auto p = problem_of(l, rows, l.x, l.state);
    T* const c =
        cell.states > 1 && !record.c ? Buffer<T>(rows.steps * rows.batch * h).get() : record.c;
    forward(p, Record<T>{record.y, c, record.saved}, last, execution, interrupt);
    return;
  }
  const Copies<T> copies(rows, execution);
  const auto p = gathered(l, rows, copies);
  const void* const has_c = l.state.c;
  const Record<T> inner{copies.room(record.y, rows.sources, h), copies.room(has_c, rows.sources, h),
                        copies.room(record.saved, rows.sources, cell.saved * h)};
  const State<T> end{copies.room(last.s, rows.entering, h), copies.room(has_c, rows.entering, h)};
  forward(p, inner, end, execution, interrupt);
  copies.scatter(inner.y, h, record.y);
  copies.scatter(inner.c, h, record.c);
  copies.scatter(inner.saved, cell.saved * h, record.saved);
  copies.take(end.s, rows.last, h, last.s);
  copies.take(end.c, rows.last, h, last.c);
}

template <class T>
void backward(const Layer<T>& l, const Record<const T>& record, const T* dy,
              const State<const T>& dlast, const Gradients<T>& gradients,
              const Execution& execution, Interrupt& interrupt) {
  const Scratch::Frame frame;
  const RowMap rows(l.sequences);
  const Index h = l.hidden;
  if (rows.same) {
    const StateGradients<T> incoming{dy, nullptr, dlast.s, dlast.c, nullptr};
    backward(problem_of(l, rows, l.x, l.state), record, incoming, gradients, Trace<T>{}, execution,
             interrupt);
    return;
  }
  const Copies<T> copies(rows, execution);
  const auto p = gathered(l, rows, copies);
  const Record<const T> inner{copies.gather(record.y, h), copies.gather(record.c, h),
                              copies.gather(record.saved, p.cell.saved * h)};
  const std::vector<Index> ending = rows.ending();
  const StateGradients<T> incoming{copies.gather(dy, h), nullptr, copies.taken(dlast.s, ending, h),
                                   copies.taken(dlast.c, ending, h), nullptr};
  Gradients<T> own = gradients;
  own.x = copies.room(gradients.x, rows.sources, l.inputs);
  own.state = copies.room(gradients.state, rows.entering, h);
  own.c = copies.room(gradients.c, rows.entering, h);
  backward(p, inner, incoming, own, Trace<T>{}, execution, interrupt);
  copies.scatter(own.x, l.inputs, gradients.x);
  copies.take(own.state, rows.first, h, gradients.state);
  copies.take(own.c, rows.first, h, gradients.c);
}

#define BPTT_INSTANTIATE(T)                                                                        \
  template void forward(const Layer<T>&, const Record<T>&, const State<T>&, const Execution&,      \
                        Interrupt&);                                                               \
  template void backward(const Layer<T>&, const Record<const T>&, const T*, const State<const T>&, \
                         const Gradients<T>&, const Execution&, Interrupt&);
BPTT_INSTANTIATE(float)
BPTT_INSTANTIATE(double)
#undef BPTT_INSTANTIATE

}  // namespace bptt
