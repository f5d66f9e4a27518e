// The packed weights of a backward pass, for all its sweeps.
#pragma once

#include <optional>

#include "engine/panels.h"
#include "engine/problem.h"
#include "engine/readout.h"

namespace bptt {

template <class T>
struct BackwardWeights {
  // `objective` is null without a readout.
  BackwardWeights(const Problem<T>& p, const Kernels<T>& kernels, const Objective<T>* objective,
                  Route taken)
      : problem(p), route(taken), gates(p.cell.gates) {
    for (Index g = 0; g < gates; ++g) {
      w_ih_t[g] = {kernels, kernels.product_width, p.inputs, p.hidden};
      if (route == Route::direct) continue;
      w_hh_t[g] = {kernels, kernels.product_width, p.hidden, p.hidden};
    }
    if (objective) readout.emplace(*objective, kernels, p.hidden);
  }

  // One member's part; all are done before anything is read.
  void pack(Member member) {
    const Index i = problem.inputs, h = problem.hidden;
    for (Index g = 0; g < gates; ++g) {
      w_ih_t[g].pack({problem.w_ih + g * h * i, 1, i, h}, 0, member);
      if (route == Route::direct) continue;
      w_hh_t[g].pack({problem.w_hh + g * h * h, 1, h, h}, 0, member);
    }
    if (readout) readout->pack(member);
  }

  const Problem<T>& problem;
  const Route route;
  const Index gates;
  // Of each gate; columns are inputs; previous hidden units, unless nothing passes them.
  Panels<T> w_ih_t[kMostGates], w_hh_t[kMostGates];
  std::optional<ReadoutWeights<T>> readout;
};

}  // namespace bptt
