// The readout O_t = W_o S_t + b_o and its loss, inside the time blocks of the backward pass: what
// it needs is one block large, whatever T is.
#pragma once

#include "engine/block_inputs.h"
#include "engine/panels.h"
#include "engine/problem.h"

namespace bptt {

template <class T>
class Readout {
 public:
  Readout(const Problem<T>& problem, const Objective<T>& objective, const Kernels<T>& kernels,
          Index block_rows);

  Index outputs() const { return objective_.outputs; }

  void pack_weights(int member, int members);

  // O, the loss and dL/dS of a block; y_block (rows, H) are its states.
  void run(const TimeBlock& block, const T* y_block, int member, int members);

  // Adds up the losses of the steps [first, last) of a block; one member, once all have run.
  void sum_losses(const TimeBlock& block, Index first, Index last);

  // dL/dS_t of a step in the block; data is null where no loss is read.
  Strips<const T> dy(const TimeBlock& block, Index t) const;

  // dW_o and db_o: first all members pack a block, then all add it, some steps [first, last) at a
  // time.
  void pack_gradient(const TimeBlock& block, int member, int members);
  void add_gradients(const TimeBlock& block, Index first, Index last, const BlockInputs<T>& inputs,
                     const Gradients<T>& gradients, int member, int members);

  // The loss; complete after the first block of time.
  double loss() const;

 private:
  Range loss_rows(const TimeBlock& block, Index first, Index last) const;
  T* o(const TimeBlock& block, Index row);

  const Problem<T>& problem_;
  const Objective<T>& objective_;
  const Kernels<T>& kernels_;
  Index padded_outputs_, padded_hidden_, block_rows_;
  Panels<T> w_ho_, w_ho_t_;  // columns are outputs; hidden units
  Panels<T> do_strips_;      // (block rows) x outputs, one strip a panel
  Buffer<T> bias_;           // (O)
  Buffer<T> o_;              // two of (block rows, padded O): O_t, then dL/dO_t
  Buffer<T> dy_;             // two of (block rows, padded H)
  Buffer<double> losses_;    // (block rows)
  double loss_ = 0;          // of the rows so far, and what rounding took from it
  double rounded_off_ = 0;
};

}  // namespace bptt
