// The forward pass, block by block of time: S_t = f(b + W_x x_t + W_s S_{t-1}), in place of the
// sum; or of a gated cell, the sums of all its gates and then its step.
#pragma once

#include <variant>

#include "engine/block.h"
#include "engine/steps_forward.h"

namespace bptt {

template <class T>
class ForwardPass {
 public:
  ForwardPass(const Call<T>& call, const Record<T>& record);

  // One member's part; all members of the plan call it at once. False if interrupted.
  bool run(int member);

 private:
  using Steps = std::variant<ElmanForward<T>, GatedForward<T>>;

  bool run_blocks(int member);
  bool run_pipeline(int member);
  bool recur(const Block& block, Range rows, Range units);
  template <class Policy>
  bool recur(const Policy& policy, const Block& block, Range rows, Range units);
  void project(const Block& block, Range units);
  T* projected(Index block);
  static Steps steps_of(const Call<T>& call, const Preactivations<T>& sums,
                        const Record<T>& record);

  const Call<T>& call_;
  Preactivations<T> sums_;
  const Steps steps_;
  Index block_rows_;
  Buffer<T> projected_;  // two of (block rows, padded sums), used in turn: b + W_x x_t
};

}  // namespace bptt
