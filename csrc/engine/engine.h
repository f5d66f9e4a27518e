// The engine: when things run. Forward pass, back-propagation through time, and both with a readout
// and a loss in between, on the kernels of the active instruction set.
//
// `threads` is the most that a call uses; results do not depend on it, to the last bit. An
// interrupted call returns early and leaves its outputs half written. Throws std::bad_alloc.
#pragma once

#include "engine/interrupt.h"
#include "engine/problem.h"

namespace bptt {

// y (T, B, H): S_t after every step; last (B, H): the state after the last one.
template <class T>
void forward(const Problem<T>& problem, T* y, T* last, int threads, Interrupt& interrupt);

// dy (T, B, H) and dstate (B, H): the loss's gradient in every state and in the last; either may
// be null.
template <class T>
void backward(const Problem<T>& problem, const T* y, const T* dy, const T* dstate,
              const Gradients<T>& gradients, int threads, Interrupt& interrupt);

// Returns the loss.
template <class T>
double value_and_grad(const Problem<T>& problem, const Objective<T>& objective,
                      const Gradients<T>& gradients, int threads, Interrupt& interrupt);

}  // namespace bptt
