// The forward pass: S_t = f(b + W_x x_t + W_s S_{t-1}), block by block of time.
#pragma once

#include "engine/interrupt.h"
#include "engine/panels.h"
#include "engine/plan.h"
#include "engine/problem.h"
#include "engine/team.h"

namespace bptt {

template <class T>
class ForwardPass {
 public:
  ForwardPass(const Problem<T>& problem, const Kernels<T>& kernels, const Plan& plan, T* y,
              Barrier& barrier, Interrupt& interrupt);

  // One member's part; all members of the plan call it at once. False if interrupted.
  bool run(int member);

 private:
  void pack_weights(int member);
  Range block_at(Index number) const;
  bool run_blocks(int member);
  bool run_pipeline(int member);
  bool recur(Index number, Range rows, Range units);
  void project(Index number, Range units);
  struct Step;
  Step step_at(Index t, const T* projected, Range rows, Range units) const;
  void advance(Step& step, Index t) const;
  T* projected(Index number);

  const Problem<T>& problem_;
  const Kernels<T>& kernels_;
  const Plan& plan_;
  const Shape shape_;
  T* y_;  // (T, B, H)
  Barrier& barrier_;
  Interrupt& interrupt_;
  Index padded_hidden_, block_rows_, blocks_;
  Panels<T> w_ih_, w_hh_;  // columns are hidden units
  Buffer<T> bias_;         // (H) b_ih + b_hh
  Buffer<T> projected_;    // two of (block rows, padded H), used in turn: b + W_x x_t
};

}  // namespace bptt
