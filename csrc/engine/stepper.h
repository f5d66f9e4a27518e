// A layer that is fed step by step: S_t = f(b + W_x x_t + W_s S_{t-1}), with S kept from call to
// call, the weights packed once, and memory of its own.
//
// A call is the forward pass of its steps, so the bits are those of one pass over all steps.
#pragma once

#include "engine/engine.h"
#include "engine/preactivations.h"
#include "engine/scratch.h"

namespace bptt {

template <class T>
class Stepper {
 public:
  // Copies the weights and the state of `layer`, whose x is not read. Subnormal numbers are flushed
  // or not for good, as the sum of the biases is rounded here.
  Stepper(const Problem<T>& layer, bool flush_subnormals);
  Stepper(const Stepper&) = delete;
  Stepper& operator=(const Stepper&) = delete;

  // Runs through x (steps, B, I) and writes y (steps, B, H), which must not overlap. If it is
  // interrupted or throws, the state is the one before.
  void run(const T* x, Index steps, T* y, int threads, Interrupt& interrupt);

  const Shape& shape() const { return problem_; }
  State<const T> state() const { return {state_.s, state_.c}; }
  // Row b of the state becomes row `from` of `rows`, or zero where that has no arrays.
  void assign(Index b, const State<const T>& rows, Index from);

  Index flops(Index steps) const;
  Index nbytes() const { return static_cast<Index>(memory_.bytes()); }

 private:
  void run_piece(T* y, const Execution& execution, Interrupt& interrupt);
  State<T> own_state();

  const Kernels<T>& kernels_;  // those that the weights are packed for
  const bool flush_subnormals_;
  Problem<T> problem_;  // of a piece of a call; its state is where that begins
  Scratch::Kept memory_;
  Preactivations<T> sums_;
  State<T> state_, next_;  // after the last call, and after the last piece of this one
};

}  // namespace bptt
