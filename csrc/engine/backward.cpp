#include "engine/backward.h"

#include <algorithm>

namespace bptt {
namespace {

// Rows of gates that are computed again in one product: several tiles, so that the weights are not
// read again for every step of a small batch.
constexpr Index kRowsComputedAgain = 24;

}  // namespace

template <class T>
BackwardPass<T>::BackwardPass(const Call<T>& call, const Record<const T>& record,
                              const StateGradients<T>& incoming, const Gradients<T>& gradients,
                              const Trace<T>& trace, bool in_segments, Carried<T>* carried)
    : call_(call),
      incoming_(incoming),
      gradients_(gradients),
      alone_(1, call.interrupt),
      weights_(call.problem, call.kernels, incoming.objective, gradients.x != nullptr,
               takes_recurrence(gradients, trace), incoming.route),
      slices_(call, gradients, in_segments, carried),
      in_segments_(in_segments),
      carried_(carried),
      blocks_(call.plan.blocks_of(call.problem.steps_there())) {
  const Problem<T>& p = call.problem;
  if (incoming.dstate && p.sequence.steps > 0) {
    last_ = Buffer<T>(p.sequence.batch * call.padded(p.hidden));
  }
  if (p.cell.gated() && !record.saved && takes_recurrence(gradients, trace)) {
    sums_.emplace(p, call.kernels, call.plan.far(p.inputs + p.hidden), kRowsComputedAgain);
  }
  const Sweeping<T> sweeping{call,      weights_,
                             record,    sums_ ? &*sums_ : nullptr,
                             incoming,  incoming.dstate ? last_.get() : nullptr,
                             gradients, trace,
                             slices_};
  const bool own = call.plan.split == Split::slices;
  const int sweeps = !own ? 1 : in_segments ? call.plan.groups() : call.plan.threads;
  for (int i = 0; i < sweeps; ++i) {
    sweeps_.push_back(std::make_unique<BackwardSweep<T>>(sweeping, own ? alone_ : call.barrier));
  }
}

template <class T>
bool BackwardPass<T>::begin(int index) {
  const Member member{index, call_.plan.threads};
  slices_.clear(member);
  if (gradients_.x && gradients_.write == Write::overwrite) {
    clear_padding(call_.problem.places, gradients_.x, call_.problem.inputs, member);
  }
  if (index == 0) join_dstate();
  weights_.pack(member);
  if (sums_) sums_->pack(member);
  if (carried_) {
    for_each_own_sweep(index, [&](BackwardSweep<T>& sweep, const Group& group) {
      sweep.resume(group, blocks_, *carried_);
    });
  }
  return call_.barrier.wait();
}

template <class T>
bool BackwardPass<T>::run(int member) {
  return run(member, blocks_);
}

template <class T>
bool BackwardPass<T>::run(int member, Range blocks) {
  const bool own = call_.plan.split == Split::slices;
  const auto through = [&](BackwardSweep<T>& sweep, const Group& group, Range rows) {
    if (blocks.end == call_.plan.blocks()) slices_.begin(rows);
    if (!sweep.run(group, rows, blocks, own ? 0 : member)) return false;
    if (blocks.begin == 0) slices_.end(rows);
    return true;
  };
  return for_each_sweep(member, through) && call_.barrier.wait();
}

// The sums are complete, or they and the gradient go on to the part before.
template <class T>
void BackwardPass<T>::end(int member) {
  if (blocks_.begin == 0) return slices_.reduce({member, call_.plan.threads});
  for_each_own_sweep(member, [&](const BackwardSweep<T>& sweep, const Group& group) {
    sweep.leave(group, blocks_, *carried_);
  });
}

template <class T>
void BackwardPass<T>::bind(int member, const Record<const T>& record) {
  for_each_own_sweep(member, [&](BackwardSweep<T>& sweep, const Group&) { sweep.bind(record); });
}

// Calls f(sweep, group) for those that this member answers for: a shared one is the first one's.
template <class T>
template <class F>
void BackwardPass<T>::for_each_own_sweep(int member, F&& f) {
  if (call_.plan.split != Split::slices && member > 0) return;
  for_each_sweep(member, [&](BackwardSweep<T>& sweep, const Group& group, Range) {
    f(sweep, group);
    return true;
  });
}

// Calls f(sweep, group, rows) for the groups in which a member takes part; false if f was once.
template <class T>
template <class F>
bool BackwardPass<T>::for_each_sweep(int member, F&& f) {
  const bool own = call_.plan.split == Split::slices;
  Index sweep = !own ? 0 : in_segments_ ? call_.plan.first_group_of(member) : member;
  return for_each_group(call_.plan, member, [&](const Group& group, Range rows) {
    BackwardSweep<T>& its = *sweeps_[static_cast<std::size_t>(sweep)];
    if (in_segments_) ++sweep;
    return f(its, group, rows);
  });
}

// What dstate adds to: dy of a row's last step or, if it has none, the initial state's gradient.
template <class T>
void BackwardPass<T>::join_dstate() {
  const Problem<T>& p = call_.problem;
  const Range steps = p.steps_there();
  p.sequence.for_each_ending({steps.begin - (steps.begin == 0), steps.end},
                             [&](Index t, Range rows) {
                               if (t < 0) {
                                 if (gradients_.state)
                                   pass_through(incoming_.dstate, rows, gradients_.state);
                                 if (gradients_.c)
                                   pass_through(incoming_.dstate_c, rows, gradients_.c);
                               } else if (incoming_.dstate) {
                                 add_last(t, rows);
                               }
                             });
}

// dy + dstate of rows whose last step is t.
template <class T>
void BackwardPass<T>::add_last(Index t, Range rows) {
  const Problem<T>& p = call_.problem;
  const Index padded = call_.padded(p.hidden);
  for (Index b = rows.begin; b < rows.end; ++b) {
    const Index row = p.places.of(p.sequence.row(t) + b);
    const T* const dy = incoming_.dy ? incoming_.dy + row * p.hidden : nullptr;
    for (Index h = 0; h < p.hidden; ++h) {
      const T into_state = incoming_.dstate[b * p.hidden + h];
      last_.get()[b * padded + h] = into_state + (dy ? dy[h] : T(0));
    }
  }
}

// The gradient of states that no step has changed.
template <class T>
void BackwardPass<T>::pass_through(const T* dstate, Range rows, T* out) const {
  const Problem<T>& p = call_.problem;
  for (Index i = rows.begin * p.hidden; i < rows.end * p.hidden; ++i) {
    const T before = gradients_.write == Write::add ? out[i] : T(0);
    out[i] = dstate ? before + dstate[i] : before;
  }
}

template class BackwardPass<float>;
template class BackwardPass<double>;

}  // namespace bptt
