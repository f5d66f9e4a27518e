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

template <class T>
class BackwardPass {
 public:
  BackwardPass(const Call<T>& call, const Record<const T>& record,
               const StateGradients<T>& incoming, const Gradients<T>& gradients,
               const Trace<T>& trace, bool in_segments = false, Carried<T>* carried = nullptr);

  // One member's part of each; all members of the plan call it at once. First they begin; then they
  // run, back through all steps or segment after segment from the last one; then they end. False if
  // interrupted.
  bool begin(int member);
  bool run(int member);
  bool run(int member, Range blocks);
  void end(int member);

  // The record of the segment that runs next: this member's part.
  void bind(int member, const Record<const T>& record);

  // Of the objective, once all members have run.
  double loss() const { return slices_.loss(); }

 private:
  void join_dstate();
  void add_last(Index t, Range rows);
  void pass_through(const T* dstate, Range rows, T* out) const;
  template <class F>
  bool for_each_sweep(int member, F&& f);
  template <class F>
  void for_each_own_sweep(int member, F&& f);

  const Call<T>& call_;
  const StateGradients<T> incoming_;
  const Gradients<T> gradients_;
  Barrier alone_;  // where nobody is waited for
  BackwardWeights<T> weights_;
  std::optional<Preactivations<T>> sums_;  // where a gated cell's gates were not saved
  SliceGradients<T> slices_;
  Buffer<T> last_;  // (B, padded H) dy + dstate at each row's last step
  const bool in_segments_;
  Carried<T>* const carried_;  // of a pass that is made part by part, or null
  const Range blocks_;         // of the problem's part
  // Of all members; or of each, that goes on from group to group, or in segments of each group.
  std::vector<std::unique_ptr<BackwardSweep<T>>> sweeps_;
};

}  // namespace bptt
