// The forward pass, block by block of time: S_t = f(b + W_x x_t + W_s S_{t-1}), in place of the
// sum; or of a gated cell, the sums of all its gates and then its step.
#pragma once

#include "engine/interrupt.h"
#include "engine/plan.h"
#include "engine/problem.h"
#include "engine/step_sums.h"
#include "engine/team.h"

namespace bptt {

template <class T>
class ForwardPass {
 public:
  ForwardPass(const Problem<T>& problem, const Kernels<T>& kernels, const Plan& plan,
              const Record<T>& record, Barrier& barrier, Interrupt& interrupt);

  // One member's part; all members of the plan call it at once. False if interrupted.
  bool run(int member);

 private:
  Range block_at(Index number) const;
  bool run_blocks(int member);
  bool run_pipeline(int member);
  bool recur(Index number, Range rows, Range units);
  struct Step;
  Step step_at(Index t, const T* projected, Range rows, Range units) const;
  void run_step(const Step& step) const;
  void advance(Step& step, Index t) const;
  T* projected(Index number);

  const Problem<T>& problem_;
  const Kernels<T>& kernels_;
  const Plan& plan_;
  const Shape shape_;
  const CellShape cell_;
  const Record<T> record_;
  Barrier& barrier_;
  Interrupt& interrupt_;
  StepSums<T> sums_;
  Index block_rows_, blocks_;
  Buffer<T> projected_;  // two of (block rows, padded sums), used in turn: b + W_x x_t
};

}  // namespace bptt
