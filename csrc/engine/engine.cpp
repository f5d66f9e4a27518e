#include "engine/engine.h"

#include <algorithm>

#include "dispatch/dispatch.h"
#include "engine/backward.h"
#include "engine/forward.h"
#include "engine/plan.h"
#include "engine/scratch.h"
#include "engine/team.h"

namespace bptt {
namespace {

template <class T>
const Kernels<T>& kernels();
template <>
const Kernels<float>& kernels<float>() {
  return kernel_table().f32;
}
template <>
const Kernels<double>& kernels<double>() {
  return kernel_table().f64;
}

// `outputs` is 0 without a readout.
template <class T>
Plan plan_of(const Problem<T>& p, Index outputs, const Kernels<T>& k, int threads, Passes passes,
             const Machine& machine = this_machine()) {
  return make_plan({p.steps, p.batch, p.inputs, p.hidden, outputs, shape_of(p.cell)},
                   k.product_width, sizeof(T), threads, passes, machine);
}

// This machine as it is now for the members of a team.
Machine machine_of(Lease& lease) {
  Machine machine = this_machine();
  if (lease.size() > 1) machine.barrier_seconds = lease.barrier_seconds();
  return machine;
}

// The scratch and the threads that a call got, and its plan, made again for these: they may be
// fewer than the first plan asked for, and further apart.
template <class T>
struct Crew {
  Crew(const Problem<T>& p, Index outputs, const Kernels<T>& k, const Execution& execution,
       Passes passes, Interrupt& interrupt)
      : lease(plan_of(p, outputs, k, execution.threads, passes).threads, execution.float_control()),
        plan(plan_of(p, outputs, k, lease.size(), passes, machine_of(lease))),
        barrier(plan.threads, interrupt) {}

  Scratch::Frame frame;
  Lease lease;
  Plan plan;
  Barrier barrier;
};

// The state after all steps, to where it is wanted.
template <class T>
void copy_last(const Problem<T>& p, const Record<T>& record, const State<T>& last) {
  const Index size = p.batch * p.hidden;
  const auto copy = [&](const T* initial, const T* history, T* out) {
    if (out) std::copy_n(p.steps ? history + (p.steps - 1) * size : initial, size, out);
  };
  copy(p.state, record.y, last.s);
  copy(p.c, record.c, last.c);
}

}  // namespace

template <class T>
void forward(const Problem<T>& problem, const Record<T>& record, const State<T>& last,
             const Execution& execution, Interrupt& interrupt) {
  const Kernels<T>& k = kernels<T>();
  Crew<T> crew(problem, 0, k, execution, Passes::forward, interrupt);
  ForwardPass<T> pass(problem, k, crew.plan, record, crew.barrier, interrupt);
  auto work = [&](int member) { pass.run(member); };
  crew.lease.run(crew.plan.threads, work);
  copy_last(problem, record, last);
}

template <class T>
void backward(const Problem<T>& problem, const Record<const T>& record, const T* dy, const T* dc,
              const State<const T>& dstate, const Gradients<T>& gradients,
              const Execution& execution, Interrupt& interrupt) {
  const Kernels<T>& k = kernels<T>();
  Crew<T> crew(problem, 0, k, execution, Passes::backward, interrupt);
  BackwardPass<T> pass(problem, k, crew.plan, record, {dy, dc, dstate.s, dstate.c, nullptr},
                       gradients, crew.barrier, interrupt);
  auto work = [&](int member) { pass.run(member); };
  crew.lease.run(crew.plan.threads, work);
}

// A record in the scratch of the current frame.
template <class T>
struct OwnRecord {
  explicit OwnRecord(const Problem<T>& p)
      : cell(shape_of(p.cell)), size(p.steps * p.batch * p.hidden), y(size) {
    if (cell.states > 1) c = Buffer<T>(size);
    if (cell.gated()) saved = Buffer<T>(cell.saved * size);
  }
  Record<T> get() { return {y.get(), c.get(), saved.get()}; }

  const CellShape cell;
  const Index size;
  Buffer<T> y, c, saved;
};

template <class T>
Record<const T> read_only(const Record<T>& r) {
  return {r.y, r.c, r.saved};
}

template <class T>
double value_and_grad(const Problem<T>& whole, const Objective<T>& objective,
                      const Gradients<T>& gradients, const State<T>& last,
                      const Execution& execution, Interrupt& interrupt) {
  // Steps after the only one whose loss counts change nothing.
  Problem<T> problem = whole;
  if (objective.step >= 0) problem.steps = objective.step + 1;

  const Kernels<T>& k = kernels<T>();
  Crew<T> crew(problem, objective.outputs, k, execution, Passes::both, interrupt);
  OwnRecord<T> record(problem);
  ForwardPass<T> forward(problem, k, crew.plan, record.get(), crew.barrier, interrupt);
  BackwardPass<T> backward(problem, k, crew.plan, read_only(record.get()),
                           {nullptr, nullptr, nullptr, nullptr, &objective}, gradients,
                           crew.barrier, interrupt);
  if (gradients.write == Write::overwrite) {
    std::fill(gradients.x + problem.steps * problem.batch * problem.inputs,
              gradients.x + whole.steps * whole.batch * whole.inputs, T(0));
  }
  auto work = [&](int member) {
    if (forward.run(member)) backward.run(member);
  };
  crew.lease.run(crew.plan.threads, work);
  copy_last(problem, record.get(), last);
  return backward.loss() * objective.scale;
}

// The passes are made, but not run, with buffers that are only counted.
template <class T>
Forecast forecast(CellId cell, const Shape& s, int threads) {
  const Problem<T> problem{cell,    s.steps, s.batch, s.inputs, s.hidden, nullptr,
                           nullptr, nullptr, nullptr, nullptr,  nullptr,  nullptr};
  const CellShape& shape = shape_of(cell);
  const Kernels<T>& k = kernels<T>();
  const Plan plan = plan_of(problem, s.outputs, k, threads, Passes::both);
  Interrupt interrupt([] { return false; });
  Barrier barrier(plan.threads, interrupt);
  const Objective<T> objective{
      LossId::squared_error, s.outputs, nullptr, nullptr, nullptr, nullptr, nullptr, -1, 1.0};
  const auto scratch_of = [&](auto&& make) {
    const Scratch::Count count;
    make();
    return static_cast<Index>(count.bytes());
  };
  const Index rows = s.steps * s.batch;
  const auto ahead = [&] { const ForwardPass<T> pass(problem, k, plan, {}, barrier, interrupt); };
  const auto behind = [&](const Objective<T>* o) {
    const T last{}, kept{};  // as if dstate were given and the gates saved
    const BackwardPass<T> pass(problem, k, plan, {nullptr, nullptr, &kept},
                               {nullptr, nullptr, o ? nullptr : &last, nullptr, o}, {}, barrier,
                               interrupt);
  };
  const auto fused = [&] {
    const OwnRecord<T> record(problem);
    ahead();
    behind(&objective);
  };
  const double columns = static_cast<double>(shape.gates * (s.inputs + s.hidden) + s.outputs);
  const Index units = (s.outputs ? 0 : 1) + 2 * (shape.states + shape.saved);
  const double arrays = static_cast<double>(3 * s.inputs + units * s.hidden + s.outputs);
  const Index scratch = s.outputs
                            ? scratch_of(fused)
                            : std::max(scratch_of(ahead), scratch_of([&] { behind(nullptr); }));
  return {plan, 6.0 * static_cast<double>(rows * s.hidden) * columns,
          arrays * static_cast<double>(rows) * sizeof(T), scratch};
}

#define BPTT_INSTANTIATE(T)                                                                        \
  template void forward<T>(const Problem<T>&, const Record<T>&, const State<T>&, const Execution&, \
                           Interrupt&);                                                            \
  template void backward<T>(const Problem<T>&, const Record<const T>&, const T*, const T*,         \
                            const State<const T>&, const Gradients<T>&, const Execution&,          \
                            Interrupt&);                                                           \
  template double value_and_grad<T>(const Problem<T>&, const Objective<T>&, const Gradients<T>&,   \
                                    const State<T>&, const Execution&, Interrupt&);                \
  template Forecast forecast<T>(CellId, const Shape&, int);
BPTT_INSTANTIATE(float)
BPTT_INSTANTIATE(double)
#undef BPTT_INSTANTIATE

}  // namespace bptt
