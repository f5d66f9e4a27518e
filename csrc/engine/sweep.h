// One sweep back through time, of some rows of the batch, by one member of the team or by several
// that share its blocks: when the readout, the recurrence and the products of each block run.
#pragma once

#include <optional>
#include <variant>

#include "engine/block_products.h"
#include "engine/steps_backward.h"

namespace bptt {

// What all sweeps of a call read and write.
template <class T>
struct Sweeping {
  const Call<T>& call;
  const BackwardWeights<T>& weights;
  Record<const T> record;
  const Preactivations<T>* sums;  // to compute again what was not saved, or null
  StateGradients<T> incoming;
  const T* last;  // (B, padded H) what replaces dy at each row's last step, or null
  Gradients<T> gradients;
  Trace<T> trace;
  SliceGradients<T>& slices;

  // Whether there is anything to compute but the readout's gradients.
  bool recurs() const { return takes_recurrence(gradients, trace); }
};

template <class T>
class BackwardSweep {
 public:
  // `barrier` is of those who share it.
  BackwardSweep(const Sweeping<T>& sweeping, Barrier& barrier);

  // Sweeps a group of rows, of which some are the member's, back through some blocks; from there it
  // goes on with those before. False if interrupted.
  bool run(const Group& group, Range rows, Range blocks, int member);

  // The record of what is swept next.
  void bind(const Record<const T>& record);

  // What goes from the step after some blocks, the problem's part, to these; and from these to the
  // step before.
  void resume(const Group& group, Range blocks, Carried<T>& from);
  void leave(const Group& group, Range blocks, Carried<T>& to) const;

 private:
  using Steps = std::variant<ElmanBackward<T>, GatedBackward<T>>;

  bool run_blocks(const Group& group, Range rows, Range blocks, Member member);
  bool run_pipeline(const Group& group, int member);
  bool copies() const;
  void copy_rows(const Block& block, Member member);
  void read_out(const Block& block, Member member);
  void sum_losses(const Block& block);
  bool recur(const Block& block, Range rows, Member member);
  template <class Policy>
  bool recur(Policy& policy, const Block& block, Range rows, Range units);
  void products(const Block& block, Member member);
  void trace_state(const Strips<T>& ds, Index t, Range rows, Range units) const;
  Steps steps_for(const BackwardReads<T>& reads);

  Sweeping<T> in_;
  const Call<T>& call_;
  Barrier& barrier_;
  Index block_rows_;
  const bool recurs_;
  Deltas<T> deltas_;
  std::optional<Readout<T>> readout_;
  Incoming<T> incoming_;
  BlockRows<T> x_;
  BlockProducts<T> products_;
  Steps steps_;
};

}  // namespace bptt
