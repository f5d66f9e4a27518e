// The engine: when things run. Forward pass, back-propagation through time, and both with a readout
// and a loss in between, on the kernels of the active instruction set.
//
// An interrupted call returns early and leaves its outputs half written. Throws std::bad_alloc.
#pragma once

#include "engine/carried.h"
#include "engine/execution.h"
#include "engine/interrupt.h"
#include "engine/plan.h"
#include "engine/segments.h"

namespace bptt {

// The parts of a state, (B, H) each; c is null in a cell without it.
template <class T>
struct State {
  T* s;
  T* c;
};

// Fills `record`, and `last` with the state after the last step.
template <class T>
void forward(const Problem<T>& problem, const Record<T>& record, const State<T>& last,
             const Execution& execution, Interrupt& interrupt);

// `incoming` has no objective.
template <class T>
void backward(const Problem<T>& problem, const Record<const T>& record,
              const StateGradients<T>& incoming, const Gradients<T>& gradients,
              const Trace<T>& trace, const Execution& execution, Interrupt& interrupt);

// The way back through the steps of `problem.part`, after the one through the steps behind them:
// the parts of a pass are one call each, from the last one on, with the same `carried`. Then the
// gradients have the bits of one call for all steps; those of parameters are complete, and that of
// the initial state is written, with the part at step 0. `record` has the state before the part in
// front of it, as a step of its own. An objective in `incoming` counts with its loss, of the parts
// so far, which is returned.
//
// Throws std::invalid_argument if a part does not begin and end where sums of steps do.
template <class T>
double backward_part(const Problem<T>& problem, const Record<const T>& record,
                     const StateGradients<T>& incoming, const Gradients<T>& gradients,
                     Carried<T>& carried, const Execution& execution, Interrupt& interrupt);

// Returns the loss. `last`, whose parts may be null, gets the state after the last step whose loss
// counts. `cut` says of how many steps the states are kept at a time.
template <class T>
double value_and_grad(const Problem<T>& problem, const Objective<T>& objective,
                      const Gradients<T>& gradients, const State<T>& last, const Cut& cut,
                      const Execution& execution, Interrupt& interrupt);

// How `forward` and `backward` together are done, or, with outputs, `value_and_grad` with its loss
// at every step; and what it takes.
struct Forecast {
  Plan plan;
  double flops;         // two for a multiply-add
  double bytes;         // of arrays that grow with T, each time one has to be read or written
  Index scratch_bytes;  // of one call, at most; value_and_grad keeps the states in it
};

template <class T>
Forecast forecast(CellId cell, const Shape& shape, const Cut& cut, int threads);

}  // namespace bptt
