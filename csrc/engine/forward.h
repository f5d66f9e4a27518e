// The forward pass, block by block of time: S_t = f(b + W_x x_t + W_s S_{t-1}), in place of the
// sum; or of a gated cell, the sums of all its gates and then its step.
#pragma once

#include <optional>
#include <variant>
#include <vector>

#include "engine/block_rows.h"
#include "engine/steps_forward.h"

namespace bptt {

template <class T>
class ForwardPass {
 public:
  ForwardPass(const Call<T>& call, const Record<T>& record);
  // With weights that are packed already, and scratch that is large enough.
  ForwardPass(const Call<T>& call, const Record<T>& record, const Preactivations<T>& packed);

  // One member's part of each; all members of the plan call it at once. `pack` comes first; `run`
  // fills the record for all steps or, in no pipeline, for some blocks of them. False if
  // interrupted.
  bool pack(int member);
  bool run(int member);
  bool run(int member, Range blocks);

  // Another record to fill from now on; by one member, while no other runs.
  void bind(const Record<T>& record);

 private:
  using Steps = std::variant<ElmanForward<T>, GatedForward<T>>;

  bool run_pipeline(int member);
  BlockRows<T>& inputs_of(int member);
  bool copy_inputs(BlockRows<T>& x, const Block& block, Range rows, int member);
  bool recur(const BlockRows<T>& x, const Block& block, Range rows, Range units);
  template <class Policy>
  bool recur(const Policy& policy, const BlockRows<T>& x, const Block& block, Range rows,
             Range units);
  void project(const BlockRows<T>& x, const Block& block, Range units);
  T* projected(Index block);

  const Call<T>& call_;
  Preactivations<T> sums_;
  std::optional<Steps> steps_;
  T* shown_ = nullptr;
  Index block_rows_;
  std::vector<BlockRows<T>> x_;  // of all members; or of each, that goes on from group to group
  Buffer<T> projected_;          // two of (block rows, padded sums), used in turn: b + W_x x_t
};

}  // namespace bptt
