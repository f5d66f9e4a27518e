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
  BackwardWeights(const Problem<T>& p, const Kernels<T>& kernels, const Objective<T>* objective)
      : problem(p),
        w_ih_t(kernels, kernels.product_width, p.inputs, p.hidden),
        w_hh_t(kernels, kernels.product_width, p.hidden, p.hidden) {
    if (objective) readout.emplace(*objective, kernels, p.hidden);
  }

  // One member's part; all are done before anything is read.
  void pack(int member, int members) {
    w_ih_t.pack({problem.w_ih, 1, problem.inputs, problem.hidden}, 0, member, members);
    w_hh_t.pack({problem.w_hh, 1, problem.hidden, problem.hidden}, 0, member, members);
    if (readout) readout->pack(member, members);
  }

  const Problem<T>& problem;
  Panels<T> w_ih_t, w_hh_t;  // columns are inputs; previous hidden units
  std::optional<ReadoutWeights<T>> readout;
};

}  // namespace bptt
