#include "engine/engine.h"

#include <algorithm>
#include <stdexcept>

#include "dispatch/dispatch.h"
#include "engine/backward.h"
#include "engine/crew.h"
#include "engine/forward.h"
#include "engine/scratch.h"
#include "engine/segments.h"

namespace bptt {
namespace {

// Throws std::invalid_argument unless some steps are whole blocks.
void expect_blocks(const Plan& plan, Range steps) {
  const Group all = plan.group({0, plan.shape.sequence.batch});
  const Range blocks = plan.blocks_of(steps);
  const bool met = blocks.size() > 0 && blocks.end <= all.blocks() &&
                   all.steps_of(blocks.begin).begin == steps.begin &&
                   all.steps_of(blocks.end - 1).end == steps.end;
  if (!met) throw std::invalid_argument("part: does not begin and end with whole sums");
}

// The state after all steps, to where it is wanted.
template <class T>
void copy_last(const Problem<T>& p, const Record<const T>& record, const State<T>& last) {
  const Range all{-1, p.sequence.steps};
  if (last.s) p.states(record.y).copy_last(all, last.s);
  if (last.c) carried_states(p, record).copy_last(all, last.c);
}

}  // namespace

template <class T>
void forward(const Problem<T>& problem, const Record<T>& record, const State<T>& last,
             const Execution& execution, Interrupt& interrupt) {
  Crew<T> crew(problem, Passes::forward, execution, interrupt);
  ForwardPass<T> pass(crew.call(), record);
  crew.run([&](int member) {
    if (pass.pack(member)) pass.run(member);
  });
  copy_last(problem, read_only(record), last);
}

template <class T>
void backward(const Problem<T>& whole, const Record<const T>& record,
              const StateGradients<T>& incoming, const Gradients<T>& gradients,
              const Trace<T>& trace, const Execution& execution, Interrupt& interrupt) {
  Problem<T> problem = whole;
  problem.rows_apart = gradients.of_rows != OfRows::sum;
  Crew<T> crew(problem, Passes::backward, execution, interrupt);
  BackwardPass<T> pass(crew.call(), record, incoming, gradients, trace);
  crew.run([&](int member) {
    if (pass.begin(member) && pass.run(member)) pass.end(member);
  });
}

template <class T>
double backward_part(const Problem<T>& whole, const Record<const T>& record,
                     const StateGradients<T>& incoming, const Gradients<T>& gradients,
                     Carried<T>& carried, const Execution& execution, Interrupt& interrupt) {
  Problem<T> problem = whole;
  problem.rows_apart = gradients.of_rows != OfRows::sum;
  if (incoming.objective) problem.outputs = incoming.objective->outputs;
  Crew<T> crew(problem, Passes::backward, execution, interrupt);
  expect_blocks(crew.call().plan, problem.part);
  carried.begin(problem);
  BackwardPass<T> pass(crew.call(), record, incoming, gradients, {}, true, &carried);
  crew.run([&](int member) {
    if (pass.begin(member) && pass.run(member)) pass.end(member);
  });
  carried.resume();
  return incoming.objective ? pass.loss() * incoming.objective->scale : 0.0;
}

namespace {

// The forward and the backward pass of a call with a loss, segment after segment of time.
template <class T>
class BothPasses {
 public:
  BothPasses(const Call<T>& call, const Objective<T>& objective, const Gradients<T>& gradients,
             const Cut& cut)
      : call_(call),
        segments_(call, cut),
        forward_(call, segments_.record(0)),
        backward_(call, read_only(segments_.record(0)),
                  {nullptr, nullptr, nullptr, nullptr, &objective}, gradients, {}, several()) {}

  // One member's part; all members of the plan call it at once. It ends early if interrupted.
  void run(int member, const State<T>& last) {
    if (!forward_.pack(member)) return;
    const Index count = segments_.count();
    for (Index i = 0; i < count; ++i) {
      if (!compute(i, member, last)) return;
    }
    if (!backward_.begin(member)) return;
    for (Index i = count - 1; i >= 0; --i) {
      if (i + 1 < count && !compute_again(i, member)) return;
      if (!pull_back(i, member)) return;
    }
    backward_.end(member);
  }

  double loss() const { return backward_.loss(); }

 private:
  bool several() const { return segments_.count() > 1; }

  // The states of a segment, from that before it, which was kept.
  bool compute(Index segment, int member, const State<T>& last) {
    if (several()) {
      if (member == 0) {
        segments_.begin(segment);
        forward_.bind(segments_.record(segment));
      }
      if (!call_.barrier.wait()) return false;
    }
    const bool done =
        several() ? forward_.run(member, segments_.blocks(segment)) : forward_.run(member);
    if (done && member == 0) segments_.end(segment, last.s, last.c);
    return done;
  }

  // The same for the way back. With the last one of a group comes all of it, since its borders were
  // not kept.
  bool compute_again(Index segment, int member) {
    const Index first = segments_.first_of_group(segment);
    const bool is_last = segments_.first_of_group(segment + 1) != first;
    for (Index i = is_last ? first : segment; i <= segment; ++i) {
      if (!compute(i, member, {nullptr, nullptr})) return false;
    }
    return true;
  }

  bool pull_back(Index segment, int member) {
    if (!several()) return backward_.run(member);
    backward_.bind(member, read_only(segments_.record(segment)));
    return call_.barrier.wait() && backward_.run(member, segments_.blocks(segment));
  }

  const Call<T>& call_;
  Segments<T> segments_;
  ForwardPass<T> forward_;
  BackwardPass<T> backward_;
};

// Without several segments a pipeline may serve.
Passes both_passes(const Cut& cut) {
  return cut.segment_steps > 0 ? Passes::both_in_segments : Passes::both;
}

}  // namespace

template <class T>
double value_and_grad(const Problem<T>& whole, const Objective<T>& objective,
                      const Gradients<T>& gradients, const State<T>& last, const Cut& cut,
                      const Execution& execution, Interrupt& interrupt) {
  // Steps after the only one whose loss counts change nothing.
  Problem<T> problem = whole;
  if (objective.step >= 0) problem.sequence.steps = objective.step + 1;
  problem.outputs = objective.outputs;
  problem.rows_apart = gradients.of_rows != OfRows::sum;

  Crew<T> crew(problem, both_passes(cut), execution, interrupt);
  BothPasses<T> passes(crew.call(), objective, gradients, cut);
  if (gradients.x && gradients.write == Write::overwrite) {
    for (Index row = problem.sequence.rows(); row < whole.sequence.rows(); ++row) {
      std::fill_n(gradients.x + whole.places.of(row) * whole.inputs, whole.inputs, T(0));
    }
  }
  crew.run([&](int member) { passes.run(member, last); });
  return passes.loss() * objective.scale;
}

// The passes are made, but not run, with buffers that are only counted.
template <class T>
Forecast forecast(CellId cell, const Shape& s, const Cut& cut, int threads) {
  const Kernels<T>& k = kernel_table().of<T>();
  T value{};  // as if all gradients were wanted, dstate given and the gates saved
  const T* const copied = s.places.moved() ? &value : nullptr;
  const Problem<T> problem{s, cell, copied, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
  const Plan plan = plan_of(s, k, threads, both_passes(cut));
  Interrupt interrupt([] { return false; });
  Barrier barrier(plan.threads, interrupt);
  const Call<T> call{problem, k, plan, barrier, interrupt};
  const Objective<T> objective{
      LossId::squared_error, s.outputs, nullptr, nullptr, nullptr, nullptr, nullptr, -1, 1.0};
  const Gradients<T> all{&value,
                         &value,
                         &value,
                         &value,
                         &value,
                         &value,
                         &value,
                         s.outputs ? &value : nullptr,
                         s.outputs ? &value : nullptr};
  const auto scratch_of = [&](auto&& make) {
    const Scratch::Count count;
    make();
    return static_cast<Index>(count.bytes());
  };
  const auto ahead = [&] { const ForwardPass<T> pass(call, {}); };
  const Objective<T>* const loss = s.in_parts() && s.outputs ? &objective : nullptr;
  const auto behind = [&] {
    const BackwardPass<T> pass(call, {nullptr, nullptr, &value},
                               {copied, nullptr, &value, nullptr, loss}, all, {}, s.in_parts());
  };
  const auto fused = [&] { const BothPasses<T> passes(call, objective, all, cut); };
  const Index rows = s.sequence.rows();
  const double columns = static_cast<double>(s.cell.gates * (s.inputs + s.hidden) + s.outputs);
  const Index units = (s.outputs ? 0 : 1) + 2 * (s.cell.states + s.cell.saved);
  const double arrays = static_cast<double>(3 * s.inputs + units * s.hidden + s.outputs);
  const bool in_one_call = s.outputs && !s.in_parts();
  const Index scratch =
      in_one_call ? scratch_of(fused) : std::max(scratch_of(ahead), scratch_of(behind));
  return {plan, 6.0 * static_cast<double>(rows * s.hidden) * columns,
          arrays * static_cast<double>(rows) * sizeof(T), scratch};
}

#define BPTT_INSTANTIATE(T)                                                                        \
  template void forward<T>(const Problem<T>&, const Record<T>&, const State<T>&, const Execution&, \
                           Interrupt&);                                                            \
  template void backward<T>(const Problem<T>&, const Record<const T>&, const StateGradients<T>&,   \
                            const Gradients<T>&, const Trace<T>&, const Execution&, Interrupt&);   \
  template double backward_part<T>(const Problem<T>&, const Record<const T>&,                      \
                                   const StateGradients<T>&, const Gradients<T>&, Carried<T>&,     \
                                   const Execution&, Interrupt&);                                  \
  template double value_and_grad<T>(const Problem<T>&, const Objective<T>&, const Gradients<T>&,   \
                                    const State<T>&, const Cut&, const Execution&, Interrupt&);    \
  template Forecast forecast<T>(CellId, const Shape&, const Cut&, int);
BPTT_INSTANTIATE(float)
BPTT_INSTANTIATE(double)
#undef BPTT_INSTANTIATE

}  // namespace bptt
