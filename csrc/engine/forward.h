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
  void project(Index first, Index last, Range units);
  void step(Index t, Index first, Range rows, Range units);

  const Problem<T>& problem_;
  const Kernels<T>& kernels_;
  const Plan& plan_;
  const Shape shape_;
  T* y_;  // (T, B, H)
  Barrier& barrier_;
  Interrupt& interrupt_;
  Index padded_hidden_;
  Panels<T> w_ih_, w_hh_;  // columns are hidden units
  Buffer<T> bias_;         // (H) b_ih + b_hh
  Buffer<T> projected_;    // (block rows, padded H) b + W_x x_t
};

}  // namespace bptt
