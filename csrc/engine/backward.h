// Back-propagation through time, block by block from the last step to the first:
//
//     dS_t = dy_t + W_sᵀ da_{t+1}        da_t = f'(a_t) dS_t
//     dx_t = W_xᵀ da_t    dW_x += da_t x_tᵀ    dW_s += da_t S_{t-1}ᵀ    db += da_t
//
// The first line is sequential and runs over the whole block; the second is done right after it,
// while the block's da_t are in cache.
#pragma once

#include "engine/interrupt.h"
#include "engine/panels.h"
#include "engine/plan.h"
#include "engine/problem.h"
#include "engine/readout.h"
#include "engine/team.h"

namespace bptt {

// Where dL/dS_t comes from: arrays of the caller, or a readout; each may be null.
template <class T>
struct StateGradients {
  const T* dy;      // (T, B, H)
  const T* dstate;  // (B, H)
  Readout<T>* readout;
};

template <class T>
class BackwardPass {
 public:
  BackwardPass(const Problem<T>& problem, const Kernels<T>& kernels, const Plan& plan, const T* y,
               const StateGradients<T>& incoming, const Gradients<T>& gradients, Barrier& barrier,
               Interrupt& interrupt);

  // One member's part; all members of the plan call it at once. It ends early if interrupted.
  void run(int member);

 private:
  struct Block : TimeBlock {
    Index rows;      // steps times batch
    T* delta;        // da_t in strips: (H / lanes)(rows)(lanes)
    const T* later;  // the same of the block after it in time
  };
  // Who does a block's products: one of so many members.
  struct Part {
    int member, members;
  };

  void clear(int member);
  void join_last_step();
  void pack_weights(int member);
  void run_blocks(int member);
  void run_pipeline(int member);
  Block block_at(Index number);
  void read_out(const Block& block, Part part);
  void sum_losses(const Block& block);
  bool recur(const Block& block, int member);
  struct Step;
  Step step_at(const Block& block, Index t, Range rows, Range units) const;
  void advance(Step& step, const Block& block, Index t, Range rows) const;
  void fetch_next(Step& step, const Block& block, Index t, Range rows) const;
  Strips<const T> state_gradient(const Block& block, Index t, Range rows) const;
  Strips<const T> states(Index t, Range rows) const;
  Strips<const T> delta_rows(const T* delta, Index row) const;
  void pack(const Block& block, Part part);
  void products(const Block& block, Part part);
  void input_gradient(const Block& block, Part part);
  void weight_gradients(const Block& block, Index first, Index last, Part part);
  void initial_state_gradient(const Block& block, Part part);

  const Problem<T>& problem_;
  const Kernels<T>& kernels_;
  const Plan& plan_;
  const Shape shape_;
  const T* y_;  // (T, B, H)
  const StateGradients<T> incoming_;
  const Gradients<T> gradients_;
  Barrier& barrier_;
  Interrupt& interrupt_;
  Index padded_hidden_, block_rows_, blocks_;
  Panels<T> w_ih_t_, w_hh_t_;  // columns are inputs; previous hidden units
  BlockInputs<T> inputs_;
  Buffer<T> delta_;  // da_t of two blocks, used in turn
  Buffer<T> last_;   // (B, padded H) dy + dstate at the last step
};

}  // namespace bptt
