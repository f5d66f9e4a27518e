// The readout O_t = W_o S_t + b_o and its loss, inside the time blocks of the backward pass: what
// it needs is one block large, whatever T is.
#pragma once

#include "engine/block_inputs.h"
#include "engine/panels.h"
#include "engine/slice_gradients.h"

namespace bptt {

// The packed weights of a readout, for all who use it.
template <class T>
class ReadoutWeights {
 public:
  ReadoutWeights(const Objective<T>& objective, const Kernels<T>& kernels, Index hidden);

  void pack(Member member);

  const T* w_ho() const { return w_ho_.get(); }      // columns are outputs
  const T* w_ho_t() const { return w_ho_t_.get(); }  // columns are hidden units
  const T* bias() const { return bias_.get(); }

 private:
  const Objective<T>& objective_;
  Index hidden_;
  Panels<T> w_ho_, w_ho_t_;
  Buffer<T> bias_;  // (padded O)
};

// The readout of blocks of at most `block_rows` rows, one after the other.
template <class T>
class Readout {
 public:
  // `pulls_back` tells whether dL/dS is read.
  Readout(const Call<T>& call, const Objective<T>& objective, const ReadoutWeights<T>& weights,
          Index block_rows, bool pulls_back);

  // O, the loss and dL/dS of a block from all states y (N, H); one member's part.
  void run(const Block& block, const T* y, Member member);

  // Adds the losses of some rows of the batch at some steps; once all members have run.
  void sum_losses(const Block& block, Range batch, Range steps, CompensatedSum& sum) const;

  // dL/dS of step t of the block, from its first row; data is null where no loss is read.
  Strips<const T> dy(const Block& block, Index t) const;

  // dW_o and db_o: first all members pack a block, then all add, for some rows at some steps.
  void pack_gradient(const Block& block, Member member);
  void add_gradients(const Block& block, Range batch, Range steps, const BlockInputs<T>& inputs,
                     const Gradients<T>& gradients, Member member) const;

 private:
  Range loss_steps(Range steps) const;
  Range loss_rows(const Block& block) const;
  void run_rows(const Block& block, const T* y, Index row, Index array_row, Index rows);
  T* o(const Block& block, Index row);

  const Problem<T>& problem_;
  const Objective<T>& objective_;
  const ReadoutWeights<T>& weights_;
  const Kernels<T>& kernels_;
  Index padded_outputs_, padded_hidden_, block_rows_;
  const bool pulls_back_;
  Panels<T> do_strips_;    // (block rows) x outputs, one strip a panel
  Buffer<T> o_;            // two of (block rows, padded O): O_t, then dL/dO_t
  Buffer<T> dy_;           // two of (block rows, padded H)
  Buffer<double> losses_;  // (block rows)
};

}  // namespace bptt
