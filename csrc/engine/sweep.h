// One sweep back through time, of some rows of the batch, by one member of the team or by several
// that share its blocks.
#pragma once

#include <optional>

#include "engine/backward_weights.h"
#include "engine/block_inputs.h"
#include "engine/interrupt.h"
#include "engine/plan.h"
#include "engine/problem.h"
#include "engine/readout.h"
#include "engine/slice_sums.h"
#include "engine/step_sums.h"
#include "engine/team.h"

namespace bptt {

// What a sweep reads beside the weights.
template <class T>
struct SweepInputs {
  Record<const T> record;
  const T* dy;                    // (T, B, H) or null
  const T* dc;                    // (T, B, H) or null
  const T* last;                  // (B, padded H) what replaces dy at the last step, or null
  const T* last_c;                // (B, H) what the last step carries, or null for zeros
  const StepSums<T>* sums;        // to compute again what was not saved, or null
  const Objective<T>* objective;  // gives dy, or null
};

template <class T>
class BackwardSweep {
 public:
  // `members` share it; `barrier` is theirs.
  BackwardSweep(const Problem<T>& problem, const Kernels<T>& kernels, const Plan& plan,
                const BackwardWeights<T>& weights, const SweepInputs<T>& inputs,
                const Gradients<T>& gradients, SliceSums<T>& sums, int members, Barrier& barrier,
                Interrupt& interrupt);

  // Sweeps the rows `batch` of the batch, at most the plan's rows_at_once. False if interrupted.
  bool run(Range batch, int member);

 private:
  // A block, and where its da_t are.
  struct Place : Block {
    T* delta;        // of each plane in strips: (H / lanes)(rows)(lanes)
    const T* later;  // the same of the block after it in time
  };
  // Who does a block's products: one of so many members.
  struct Part {
    int member, members;
  };
  struct Step;

  bool run_blocks(Range batch, int member);
  bool run_pipeline(Range batch, int member);
  Place block_at(Index number, Range batch);
  void read_out(const Block& block, Part part);
  void sum_losses(const Block& block);
  bool recur(const Place& block, int member);
  Range rows_of(const Block& block, int member) const;
  bool compute_gates(const Place& block, Range rows, Range units);
  T* gates_of(const Block& block, Index t, Index b);
  void start_carry(const Block& block, Range rows, Range units);
  Step step_at(const Place& block, Index t, Range rows, Range units);
  GatesBackward<T> gates_at(const Place& block, Index t, Range rows, Range units);
  void run_pointwise(const Step& step) const;
  void write_state_gradient(const Place& block, const Step& step, Index t, Range rows,
                            Range units) const;
  void advance(Step& step, const Place& block, Index t, Range rows) const;
  void fetch_next(Step& step, const Block& block, Index t, Range rows) const;
  Strips<const T> state_gradient(const Block& block, Index t, Range rows) const;
  Strips<const T> states(Index t, Range rows) const;
  Strips<const T> delta_rows(const T* delta, Index plane, Index row) const;
  void read_deltas(Product<T>& product, const T* delta, Index row) const;
  void pack(const Block& block, Part part);
  void products(const Place& block, Part part);
  void input_gradient(const Place& block, Part part);
  void write_deltas(const Place& block, Part part);
  void weight_gradients(const Place& block, Part part);
  void add_weight_gradients(const Place& block, Range batch, Range steps, const Gradients<T>& g,
                            Part part);
  void initial_state_gradient(const Place& block, Part part);

  const Problem<T>& problem_;
  const Kernels<T>& kernels_;
  const Plan& plan_;
  const Shape shape_;
  const CellShape cell_;
  const BackwardWeights<T>& weights_;
  const SweepInputs<T> in_;
  const Gradients<T> gradients_;
  SliceSums<T>& sums_;
  const int members_;
  Barrier& barrier_;
  Interrupt& interrupt_;
  Index padded_hidden_, block_rows_, blocks_;
  BlockInputs<T> inputs_;
  std::optional<Readout<T>> readout_;
  Index plane_;      // size of a plane of a block's da_t
  Buffer<T> delta_;  // da_t of two blocks, used in turn
  Buffer<T> ds_;     // (rows at once, padded H) dL/dS_t of a gated cell
  Buffer<T> carry_;  // (rows at once, padded H) what it carries from step to step
  Buffer<T> gates_;  // (block rows, saved, H) what was not saved
};

}  // namespace bptt
