#include "engine/backward.h"

#include <algorithm>

namespace bptt {

template <class T>
BackwardPass<T>::BackwardPass(const Call<T>& call, const Record<const T>& record,
                              const StateGradients<T>& incoming, const Gradients<T>& gradients,
                              const Trace<T>& trace)
    : call_(call),
      incoming_(incoming),
      gradients_(gradients),
      alone_(1, call.interrupt),
      weights_(call.problem, call.kernels, incoming.objective),
      slices_(call, gradients) {
  const Problem<T>& p = call.problem;
  if (incoming.dstate && p.sequence.steps > 0) {
    last_ = Buffer<T>(p.sequence.batch * call.padded(p.hidden));
  }
  if (p.cell.gated() && !record.saved) sums_.emplace(p, call.kernels);
  const Sweeping<T> sweeping{call,      weights_,
                             record,    sums_ ? &*sums_ : nullptr,
                             incoming,  incoming.dstate ? last_.get() : nullptr,
                             gradients, trace,
                             slices_};
  const bool own = call.plan.split == Split::slices;
  for (int i = 0; i < (own ? call.plan.threads : 1); ++i) {
    sweeps_.push_back(std::make_unique<BackwardSweep<T>>(sweeping, own ? alone_ : call.barrier));
  }
}

template <class T>
void BackwardPass<T>::run(int index) {
  const Member member{index, call_.plan.threads};
  slices_.clear(member);
  if (index == 0) join_dstate();
  weights_.pack(member);
  if (sums_) sums_->pack(member);
  if (!call_.barrier.wait()) return;
  if (!sweep(index) || !call_.barrier.wait()) return;
  slices_.reduce(member);
}

// False if interrupted.
template <class T>
bool BackwardPass<T>::sweep(int member) {
  const Plan& plan = call_.plan;
  if (plan.split != Split::slices) {
    return sweeps_[0]->run({0, call_.problem.sequence.batch}, member);
  }
  const Range mine = plan.rows_of(member);
  for (Index first = mine.begin; first < mine.end; first += plan.rows_at_once) {
    const Range batch{first, std::min(first + plan.rows_at_once, mine.end)};
    if (!sweeps_[static_cast<std::size_t>(member)]->run(batch, 0)) return false;
  }
  return true;
}

// What dstate adds to: dy of the last step or, without steps, the initial state's gradient.
template <class T>
void BackwardPass<T>::join_dstate() {
  const Problem<T>& p = call_.problem;
  const Index steps = p.sequence.steps;
  const T* dstate = incoming_.dstate;
  if (steps == 0) {
    pass_through(dstate, gradients_.state);
    if (gradients_.c) pass_through(incoming_.dstate_c, gradients_.c);
  } else if (dstate) {
    const T* dy = incoming_.dy ? incoming_.dy + p.sequence.row(steps - 1) * p.hidden : nullptr;
    const Index padded = call_.padded(p.hidden);
    for (Index b = 0; b < p.sequence.batch; ++b) {
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
  const Problem<T>& p = call_.problem;
  for (Index i = 0; i < p.sequence.batch * p.hidden; ++i) {
    const T before = gradients_.write == Write::add ? out[i] : T(0);
    out[i] = dstate ? before + dstate[i] : before;
  }
}

template class BackwardPass<float>;
template class BackwardPass<double>;

}  // namespace bptt
