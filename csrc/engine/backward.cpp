#include "engine/backward.h"

#include <algorithm>

namespace bptt {

template <class T>
BackwardPass<T>::BackwardPass(const Problem<T>& problem, const Kernels<T>& kernels,
                              const Plan& plan, const Record<const T>& record,
                              const StateGradients<T>& incoming, const Gradients<T>& gradients,
                              Barrier& barrier, Interrupt& interrupt)
    : problem_(problem),
      kernels_(kernels),
      plan_(plan),
      shape_{problem.steps, problem.batch, problem.inputs, problem.hidden},
      incoming_(incoming),
      gradients_(gradients),
      barrier_(barrier),
      alone_(1, interrupt),
      weights_(problem, kernels, incoming.objective),
      sums_(problem, kernels, gradients, incoming.objective ? incoming.objective->outputs : 0,
            plan.slices(shape_)) {
  if (incoming.dstate && problem.steps > 0) {
    last_ = Buffer<T>(problem.batch * round_up(problem.hidden, kernels.lanes));
  }
  if (shape_of(problem.cell).gated() && !record.saved) step_sums_.emplace(problem, kernels);
  const bool apart = plan.apart(shape_);
  const SweepInputs<T> inputs{record,
                              incoming.dy,
                              incoming.dc,
                              incoming.dstate ? last_.get() : nullptr,
                              incoming.dstate_c,
                              step_sums_ ? &*step_sums_ : nullptr,
                              incoming.objective};
  for (int i = 0; i < (apart ? plan.threads : 1); ++i) {
    sweeps_.push_back(std::make_unique<BackwardSweep<T>>(problem, kernels, plan, weights_, inputs,
                                                         gradients, sums_, apart ? 1 : plan.threads,
                                                         apart ? alone_ : barrier, interrupt));
  }
}

template <class T>
void BackwardPass<T>::run(int member) {
  sums_.clear(member, plan_.threads);
  if (member == 0) join_dstate();
  weights_.pack(member, plan_.threads);
  if (step_sums_) step_sums_->pack(member, plan_.threads);
  if (!barrier_.wait()) return;
  if (!sweep(member) || !barrier_.wait()) return;
  sums_.reduce(member, plan_.threads);
}

// False if interrupted.
template <class T>
bool BackwardPass<T>::sweep(int member) {
  if (!plan_.apart(shape_)) return sweeps_[0]->run({0, problem_.batch}, member);
  const Range mine = plan_.rows_of(member, shape_);
  for (Index first = mine.begin; first < mine.end; first += plan_.rows_at_once) {
    const Range batch{first, std::min(first + plan_.rows_at_once, mine.end)};
    if (!sweeps_[static_cast<std::size_t>(member)]->run(batch, 0)) return false;
  }
  return true;
}

// What dstate adds to: dy of the last step or, without steps, the initial state's gradient.
template <class T>
void BackwardPass<T>::join_dstate() {
  const Problem<T>& p = problem_;
  const T* dstate = incoming_.dstate;
  if (p.steps == 0) {
    pass_through(dstate, gradients_.state);
    if (gradients_.c) pass_through(incoming_.dstate_c, gradients_.c);
  } else if (dstate) {
    const T* dy = incoming_.dy ? incoming_.dy + (p.steps - 1) * p.batch * p.hidden : nullptr;
    const Index padded = round_up(p.hidden, kernels_.lanes);
    for (Index b = 0; b < p.batch; ++b) {
      for (Index h = 0; h < p.hidden; ++h) {
        const Index i = b * p.hidden + h;
        last_.get()[b * padded + h] = dstate[i] + (dy ? dy[i] : T(0));
      }
    }
  }
}

// The gradient of a state that no step has changed.
template <class T>
void BackwardPass<T>::pass_through(const T* dstate, T* out) const {
  for (Index i = 0; i < problem_.batch * problem_.hidden; ++i) {
    const T before = gradients_.write == Write::add ? out[i] : T(0);
    out[i] = dstate ? before + dstate[i] : before;
  }
}

template class BackwardPass<float>;
template class BackwardPass<double>;

}  // namespace bptt
