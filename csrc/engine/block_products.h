// The products of a block of time that do not wait for other steps, once its da_t are complete: dx,
// the weight gradients, and of the first block the initial state's gradient.
#pragma once

#include "engine/block_inputs.h"
#include "engine/deltas.h"
#include "engine/readout.h"
#include "engine/slice_gradients.h"

namespace bptt {

template <class T>
class BlockProducts {
 public:
  // `readout` is null if there is none; `x` are copied before `pack`, where they are. A block has
  // at most `block_rows` rows.
  BlockProducts(const Call<T>& call, const BackwardWeights<T>& weights, const T* y,
                const Deltas<T>& deltas, Readout<T>* readout, const Gradients<T>& gradients,
                const Trace<T>& trace, SliceGradients<T>& slices, const BlockRows<T>& x,
                Index block_rows);

  // Other states, from the next block on.
  void bind(const T* y) { inputs_.bind(y); }

  // One member's part: all pack before any of them computes.
  void pack(const Block& block, Member member);
  void run(const Block& block, Member member);

 private:
  void input_gradient(const Block& block, Member member);
  void write_deltas(const Block& block, Member member);
  void weight_gradients(const Block& block, Member member);
  void add_weight_gradients(const Block& block, Range batch, Range steps, const Gradients<T>& g,
                            Member member);
  void add_bias_gradients(const Block& block, Range batch, Range steps, const Gradients<T>& g,
                          Range units);
  void initial_state_gradient(const Block& block, Member member);
  Strips<const T> deltas_of(const Block& block, Index plane, Index t, Index b) const;

  const Call<T>& call_;
  const BackwardWeights<T>& weights_;
  const Deltas<T>& deltas_;
  Readout<T>* const readout_;
  const Gradients<T> gradients_;
  const Trace<T> trace_;
  SliceGradients<T>& slices_;
  BlockInputs<T> inputs_;
};

}  // namespace bptt
