// What the weight gradients of a block of time read beside da_t: x_t, S_{t-1} and S_t.
//
// Short rows of whole vectors are read as they lie; others are packed, since rows a long way apart
// fall on few sets of the first-level cache. In a ragged batch rows are packed, too, that do not
// lie one after the other: those of a slice, and S_{t-1} always.
#pragma once

#include "engine/block_rows.h"
#include "engine/panels.h"

namespace bptt {

// Which of them anything reads.
struct InputsRead {
  bool x, previous, states;
};

// A matrix of which the rows from `first` on take part in a sum; those of the next step are `step`
// rows further.
template <class T>
struct Operand {
  Columns<T> matrix;
  Index first, step;
};

template <class T>
class BlockInputs {
 public:
  // `y` (N, H) are all states; a block has at most so many rows, and rows of the batch. What is not
  // read must not be asked for. `copied` has x of each block before that is packed, or is null:
  // then it is the problem's.
  BlockInputs(const Problem<T>& problem, const Kernels<T>& kernels, const T* y, Index block_rows,
              Index batch, const InputsRead& read, bool packs_split,
              const BlockRows<T>* copied = nullptr);

  // Other states, from the next block on.
  void bind(const T* y) { states_ = problem_.states(y); }

  // One member's part; all are done before anything of the block is read.
  void pack(const Block& block, Member member);

  // From row b of the batch at step t on. Before step 0 there is the initial state, so `previous`
  // of step 0 is that step's alone.
  Operand<T> x(const Block& block, Index t, Index b) const;
  Operand<T> previous(const Block& block, Index t, Index b) const;
  Operand<T> states(const Block& block, Index t, Index b) const;

 private:
  bool has_to_pack(const T* array, Index columns) const;
  bool too_long(Index columns) const;
  bool packs_x() const { return read_.x && packed_inputs_; }
  bool packs_previous() const { return read_.previous && (packed_units_ || ragged_); }
  bool packs_states() const { return read_.states && packed_units_; }
  void pack_ragged_states(const Block& block, Member member);
  Operand<T> packed(const Panels<T>& panels, const Block& block, Index row, Index b) const;
  Operand<T> as_it_lies(const T* array, Index columns, Index row) const;

  const Problem<T>& problem_;
  const Kernels<T>& kernels_;
  const BlockRows<T>* const copied_;
  States<T> states_;
  const bool ragged_;
  const bool whole_;  // a block has all rows of the batch
  const InputsRead read_;
  const bool packs_split_;  // arrays whose vectors lie in two cache lines each
  const bool packed_inputs_, packed_units_;
  Panels<T> x_[2];
  Panels<T> s_[2];      // S_{t-1} of the block's steps, and behind them S_t of its last
  Panels<T> after_[2];  // S_t of the block's steps, in a ragged batch
};

}  // namespace bptt
