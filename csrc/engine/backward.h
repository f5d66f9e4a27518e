// Back-propagation through time:
//
//     da_t = f'(a_t) (dL/dS_t + W_sᵀ da_{t+1})        dx_t = W_xᵀ da_t        dS_{-1} = W_sᵀ da_0
//     dW_x = sum_t da_t x_tᵀ       dW_s = sum_t da_t S_{t-1}ᵀ       db = sum_t da_t
//
// or, of a gated cell, da_t as cells/ has it.
//
// Where each member has slices of the batch of its own, it sweeps through time alone, some rows at
// once; else all members make one sweep together (sweep.h).
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "engine/sweep.h"

namespace bptt {

// Where dL/dS_t comes from: arrays of the caller, or the loss of a readout; each may be null.
template <class T>
struct StateGradients {
  const T* dy;        // (T, B, H)
  const T* dc;        // (T, B, H)
  const T* dstate;    // (B, H)
  const T* dstate_c;  // (B, H)
  const Objective<T>* objective;
};

template <class T>
class BackwardPass {
 public:
  BackwardPass(const Problem<T>& problem, const Kernels<T>& kernels, const Plan& plan,
               const Record<const T>& record, const StateGradients<T>& incoming,
               const Gradients<T>& gradients, Barrier& barrier, Interrupt& interrupt);

  // One member's part; all members of the plan call it at once. It ends early if interrupted.
  void run(int member);

  // Of the objective, once all members have run.
  double loss() const { return sums_.loss(); }

 private:
  void join_dstate();
  void pass_through(const T* dstate, T* out) const;
  bool sweep(int member);

  const Problem<T>& problem_;
  const Kernels<T>& kernels_;
  const Plan& plan_;
  const Shape shape_;
  const StateGradients<T> incoming_;
  const Gradients<T> gradients_;
  Barrier& barrier_;
  Barrier alone_;  // where nobody is waited for
  BackwardWeights<T> weights_;
  std::optional<StepSums<T>> step_sums_;  // where a gated cell's gates were not saved
  SliceSums<T> sums_;
  Buffer<T> last_;  // (B, padded H) dy + dstate at the last step
  std::vector<std::unique_ptr<BackwardSweep<T>>> sweeps_;  // of all members, or of each
};

}  // namespace bptt
