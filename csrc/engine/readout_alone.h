// The readout of states that are there, without the recurrence that made them: its outputs
// O_t = W_o S_t + b_o, or the loss of these and its gradients,
//
//     dL/dS_t = W_oᵀ dL/dO_t       dW_o = sum_t dL/dO_t S_tᵀ       db_o = sum_t dL/dO_t
//
// Each state has the gradient of its own loss alone: nothing goes from step to step.
#pragma once

#include "engine/execution.h"
#include "engine/interrupt.h"
#include "engine/problem.h"

namespace bptt {

// What is read out, and where to.
template <class T>
struct Outputs {
  Index rows, hidden, outputs;
  const T* y;     // (rows, H)
  const T* w_ho;  // (O, H)
  const T* b_o;   // (O) or null
  T* o;           // (rows, O), written
};

template <class T>
void read_out(const Outputs<T>& asked, const Execution& execution, Interrupt& interrupt);

// Where the gradients of a loss are written.
template <class T>
struct ReadoutGradients {
  T* dy;    // (N, H), or (B, H) of a loss at one step
  T* w_ho;  // (O, H)
  T* b_o;   // (O) or null
};

// Returns the loss of the states `y` (N, H) of a layer. Sums are those of `value_and_grad`, in its
// order: the loss and the readout's gradients have its bits.
template <class T>
double readout_gradient(const Problem<T>& layer, const T* y, const Objective<T>& objective,
                        const ReadoutGradients<T>& gradients, const Execution& execution,
                        Interrupt& interrupt);

}  // namespace bptt
