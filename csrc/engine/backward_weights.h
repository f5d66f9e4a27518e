// The packed weights of a backward pass, for all its sweeps: those that it multiplies by.
#pragma once

#include <optional>

#include "engine/panels.h"
#include "engine/problem.h"
#include "engine/readout.h"

namespace bptt {

template <class T>
struct BackwardWeights {
  // `objective` is null without a readout; `inputs` and `recurrence` tell whether anything goes
  // back to x and through time; along the direct route that takes no W_s.
  BackwardWeights(const Problem<T>& p, const Kernels<T>& kernels, const Objective<T>* objective,
                  bool inputs, bool recurrence, Route taken)
      : problem(p),
        route(taken),
        input_gates(inputs ? p.cell.gates : 0),
        recurrent_gates(recurrence && taken == Route::whole ? p.cell.gates : 0) {
    for (Index g = 0; g < input_gates; ++g) {
      w_ih_t[g] = {kernels, kernels.product_width, p.inputs, p.hidden};
    }
    for (Index g = 0; g < recurrent_gates; ++g) {
      w_hh_t[g] = {kernels, kernels.product_width, p.hidden, p.hidden};
    }
    if (objective) readout.emplace(*objective, kernels, p.hidden);
  }

  // One member's part; all are done before anything is read.
  void pack(Member member) {
    const Index i = problem.inputs, h = problem.hidden;
    for (Index g = 0; g < input_gates; ++g) {
      w_ih_t[g].pack({problem.w_ih + g * h * i, 1, i, h}, 0, member);
    }
    for (Index g = 0; g < recurrent_gates; ++g) {
      w_hh_t[g].pack({problem.w_hh + g * h * h, 1, h, h}, 0, member);
    }
    if (readout) readout->pack(member);
  }

  const Problem<T>& problem;
  const Route route;
  const Index input_gates, recurrent_gates;  // none where nothing is multiplied
  // Of each gate; columns are inputs; previous hidden units.
  Panels<T> w_ih_t[kMostGates], w_hh_t[kMostGates];
  std::optional<ReadoutWeights<T>> readout;
};

}  // namespace bptt
