#include "engine/block_inputs.h"

#include <cstdint>

namespace bptt {
namespace {

// Bytes of a row up to which unpacked rows are as fast (docs/performance.md).
constexpr Index kLongestRow = 1 << 10;

// Units of all gates, from which on a row is read often enough for its vectors to be put in order.
constexpr Index kLeastUnits = 128;

// Whether vectors of so many bytes of an array lie in one cache line each. An array that is not
// there yet may become one where they do not.
bool aligned(const void* array, Index bytes) {
  return array && reinterpret_cast<std::uintptr_t>(array) % static_cast<std::uintptr_t>(bytes) == 0;
}

}  // namespace

template <class T>
BlockInputs<T>::BlockInputs(const Problem<T>& problem, const Kernels<T>& kernels, const T* y,
                            Index block_rows, Index batch, const InputsRead& read, bool packs_split,
                            const BlockRows<T>* copied)
    : problem_(problem),
      kernels_(kernels),
      copied_(copied),
      states_(problem.states(y)),
      ragged_(!problem.sequence.dense()),
      whole_(batch == problem.sequence.batch),
      read_(read),
      packs_split_(packs_split),
      packed_inputs_(copied ? too_long(problem.inputs) : has_to_pack(problem.x, problem.inputs)),
      packed_units_(has_to_pack(y, problem.hidden)) {
  const Index width = kernels.outer_width;
  if (packs_x()) {
    for (Panels<T>& x : x_) x = {kernels, width, problem.inputs, block_rows};
  }
  if (packs_previous() || (packs_states() && !ragged_)) {
    for (Panels<T>& s : s_) s = {kernels, width, problem.hidden, block_rows + batch};
  }
  if (packs_states() && ragged_) {
    for (Panels<T>& after : after_) after = {kernels, width, problem.hidden, block_rows};
  }
}

template <class T>
bool BlockInputs<T>::has_to_pack(const T* array, Index columns) const {
  if (ragged_ && !whole_) return true;
  const bool reused = problem_.cell.gates * problem_.hidden >= kLeastUnits;
  if (packs_split_ && reused && !aligned(array, kernels_.lanes * static_cast<Index>(sizeof(T)))) {
    return true;
  }
  return too_long(columns);
}

// Whether the rows of an array are longer than is good, or no whole vectors.
template <class T>
bool BlockInputs<T>::too_long(Index columns) const {
  return columns % kernels_.lanes != 0 || columns * static_cast<Index>(sizeof(T)) > kLongestRow;
}

template <class T>
void BlockInputs<T>::pack(const Block& block, Member member) {
  const Problem<T>& p = problem_;
  const Index batch = block.batch.size();
  const Range all{0, block.rows()};
  if (packs_x()) {
    Panels<T>& panels = x_[block.number % 2];
    if (copied_) {
      panels.pack({copied_->copied(block), 1, p.inputs, block.rows()}, 0, member);
    } else {
      for_each_run(block, p.sequence, all, [&](Index row, Index array_row, Index rows) {
        panels.pack({p.x + array_row * p.inputs, 1, p.inputs, rows}, row, member);
      });
    }
  }
  if (ragged_) return pack_ragged_states(block, member);
  if (packs_previous() || packs_states()) {
    Panels<T>& s = s_[block.number % 2];
    const T* before = states_.before(block.steps.begin, block.batch.begin);
    s.pack({before, 1, p.hidden, batch}, 0, member);
    for_each_run(block, p.sequence, all, [&](Index row, Index array_row, Index rows) {
      s.pack({states_.rest + array_row * p.hidden, 1, p.hidden, rows}, batch + row, member);
    });
  }
}

template <class T>
void BlockInputs<T>::pack_ragged_states(const Block& block, Member member) {
  const Index hidden = problem_.hidden, parity = block.number % 2;
  for (Index t = block.steps.begin; read_.previous && t < block.steps.end; ++t) {
    const T* const before = states_.before(t, block.batch.begin);
    s_[parity].pack({before, 1, hidden, block.sequence.active(t)}, block.row_of(t), member);
  }
  if (!packs_states()) return;
  for_each_run(block, problem_.sequence, {0, block.rows()},
               [&](Index row, Index array_row, Index rows) {
                 const T* const after = states_.rest + array_row * hidden;
                 after_[parity].pack({after, 1, hidden, rows}, row, member);
               });
}

template <class T>
Operand<T> BlockInputs<T>::packed(const Panels<T>& panels, const Block& block, Index row,
                                  Index b) const {
  return {panels.columns(), row + b - block.batch.begin, block.batch.size()};
}

// The steps after it are as far apart as those of a dense array.
template <class T>
Operand<T> BlockInputs<T>::as_it_lies(const T* array, Index columns, Index row) const {
  return {{array, 1, columns}, row, problem_.sequence.batch};
}

template <class T>
Operand<T> BlockInputs<T>::x(const Block& block, Index t, Index b) const {
  if (packed_inputs_) return packed(x_[block.number % 2], block, block.row_of(t), b);
  if (copied_) {
    return {{copied_->copied(block), 1, problem_.inputs},
            copied_->row_of_copy(block, t, b),
            block.batch.size()};
  }
  return as_it_lies(problem_.x, problem_.inputs, problem_.sequence.row(t) + b);
}

template <class T>
Operand<T> BlockInputs<T>::previous(const Block& block, Index t, Index b) const {
  const Index columns = problem_.hidden;
  if (packed_units_ || ragged_) return packed(s_[block.number % 2], block, block.row_of(t), b);
  return t == 0 ? as_it_lies(states_.initial, columns, b)
                : as_it_lies(states_.rest, columns, problem_.sequence.row(t - 1) + b);
}

template <class T>
Operand<T> BlockInputs<T>::states(const Block& block, Index t, Index b) const {
  const Index columns = problem_.hidden;
  if (!packed_units_) return as_it_lies(states_.rest, columns, problem_.sequence.row(t) + b);
  return ragged_ ? packed(after_[block.number % 2], block, block.row_of(t), b)
                 : packed(s_[block.number % 2], block, block.row_of(t + 1), b);
}

template class BlockInputs<float>;
template class BlockInputs<double>;

}  // namespace bptt
