// What every part of a call knows.
#pragma once

#include "engine/interrupt.h"
#include "engine/plan.h"
#include "engine/problem.h"
#include "engine/team.h"

namespace bptt {

template <class T>
struct Call {
  const Problem<T>& problem;
  const Kernels<T>& kernels;
  const Plan& plan;
  Barrier& barrier;  // of all its members
  Interrupt& interrupt;

  const Cell<T>& cell() const { return kernels.cells[static_cast<std::size_t>(problem.id)]; }

  // Rows of `values` columns as kernels read and write them.
  template <class U>
  Strips<U> rows(U* data, Index values) const {
    return {data, kernels.lanes, values};
  }
  // The width of a row of `values` in whole vectors.
  Index padded(Index values) const { return round_up(values, kernels.lanes); }

  // Notes work that is done; false if the call was interrupted.
  bool go_on(Index flops) const {
    interrupt.progress(flops);
    return !interrupt.stopped();
  }
};

}  // namespace bptt
