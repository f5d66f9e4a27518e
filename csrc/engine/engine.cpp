#include "engine/engine.h"

#include <algorithm>

#include "dispatch/dispatch.h"
#include "engine/backward.h"
#include "engine/forward.h"
#include "engine/plan.h"
#include "engine/readout.h"
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

// The scratch and the threads that a call got, and its plan, made again for these: they may be
// fewer than the first plan asked for.
template <class T>
struct Crew {
  Crew(const Problem<T>& p, const Kernels<T>& k, int threads, Passes passes,
       const Interrupt& interrupt)
      : lease(planned(p, k, threads, passes).threads),
        plan(planned(p, k, lease.size(), passes)),
        barrier(plan.threads, interrupt) {}

  static Plan planned(const Problem<T>& p, const Kernels<T>& k, int threads, Passes passes) {
    return make_plan({p.steps, p.batch, p.inputs, p.hidden}, k.product_width, sizeof(T), threads,
                     passes);
  }

  Scratch::Frame frame;
  Lease lease;
  Plan plan;
  Barrier barrier;
};

}  // namespace

template <class T>
void forward(const Problem<T>& problem, T* y, T* last, int threads, Interrupt& interrupt) {
  const Kernels<T>& k = kernels<T>();
  Crew<T> crew(problem, k, threads, Passes::forward, interrupt);
  ForwardPass<T> pass(problem, k, crew.plan, y, crew.barrier, interrupt);
  auto work = [&](int member) { pass.run(member); };
  crew.lease.run(crew.plan.threads, work);
  const Index state_size = problem.batch * problem.hidden;
  const T* final = problem.steps ? y + (problem.steps - 1) * state_size : problem.state;
  std::copy_n(final, state_size, last);
}

template <class T>
void backward(const Problem<T>& problem, const T* y, const T* dy, const T* dstate,
              const Gradients<T>& gradients, int threads, Interrupt& interrupt) {
  const Kernels<T>& k = kernels<T>();
  Crew<T> crew(problem, k, threads, Passes::backward, interrupt);
  BackwardPass<T> pass(problem, k, crew.plan, y, {dy, dstate, nullptr}, gradients, crew.barrier,
                       interrupt);
  auto work = [&](int member) { pass.run(member); };
  crew.lease.run(crew.plan.threads, work);
}

template <class T>
double value_and_grad(const Problem<T>& whole, const Objective<T>& objective,
                      const Gradients<T>& gradients, int threads, Interrupt& interrupt) {
  // Steps after the only one whose loss counts change nothing.
  Problem<T> problem = whole;
  if (objective.step >= 0) problem.steps = objective.step + 1;
  if (gradients.write == Write::overwrite) {
    std::fill(gradients.x + problem.steps * problem.batch * problem.inputs,
              gradients.x + whole.steps * whole.batch * whole.inputs, T(0));
    std::fill_n(gradients.w_ho, objective.outputs * problem.hidden, T(0));
    if (gradients.b_o) std::fill_n(gradients.b_o, objective.outputs, T(0));
  }

  const Kernels<T>& k = kernels<T>();
  Crew<T> crew(problem, k, threads, Passes::both, interrupt);
  Buffer<T> y(problem.steps * problem.batch * problem.hidden);
  ForwardPass<T> forward(problem, k, crew.plan, y.get(), crew.barrier, interrupt);
  Readout<T> readout(problem, objective, k,
                     std::min(crew.plan.block_steps, problem.steps) * problem.batch);
  BackwardPass<T> backward(problem, k, crew.plan, y.get(), {nullptr, nullptr, &readout}, gradients,
                           crew.barrier, interrupt);
  auto work = [&](int member) {
    if (forward.run(member) && crew.barrier.wait()) backward.run(member);
  };
  crew.lease.run(crew.plan.threads, work);
  return readout.loss();
}

#define BPTT_INSTANTIATE(T)                                                                       \
  template void forward<T>(const Problem<T>&, T*, T*, int, Interrupt&);                           \
  template void backward<T>(const Problem<T>&, const T*, const T*, const T*, const Gradients<T>&, \
                            int, Interrupt&);                                                     \
  template double value_and_grad<T>(const Problem<T>&, const Objective<T>&, const Gradients<T>&,  \
                                    int, Interrupt&);
BPTT_INSTANTIATE(float)
BPTT_INSTANTIATE(double)
#undef BPTT_INSTANTIATE

}  // namespace bptt
