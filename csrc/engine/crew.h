// Who computes a call: its threads, and how the work is cut for them.
#pragma once

#include "dispatch/dispatch.h"
#include "engine/call.h"
#include "engine/execution.h"
#include "engine/scratch.h"

namespace bptt {

template <class T>
Plan plan_of(const Shape& shape, const Kernels<T>& k, int threads, Passes passes,
             const Machine& machine = this_machine()) {
  return make_plan(shape, k.product_width, sizeof(T), threads, passes, machine);
}

// This machine as it is now for the members of a team.
inline Machine machine_of(Lease& lease) {
  Machine machine = this_machine();
  if (lease.size() > 1) machine.barrier_seconds = lease.barrier_seconds();
  return machine;
}

// The scratch and the threads that a call got, and its plan, made again for these: they may be
// fewer than the first plan asked for, and further from each other.
template <class T>
class Crew {
 public:
  Crew(const Problem<T>& problem, Passes passes, const Execution& execution, Interrupt& interrupt,
       const Kernels<T>& kernels = kernel_table().of<T>())
      : kernels_(kernels),
        lease_(plan_of(problem, kernels_, execution.threads, passes).threads,
               execution.float_control()),
        plan_(plan_of(problem, kernels_, lease_.size(), passes, machine_of(lease_))),
        barrier_(plan_.threads, interrupt),
        call_{problem, kernels_, plan_, barrier_, interrupt} {}

  const Call<T>& call() const { return call_; }

  // f(member) on all members.
  template <class F>
  void run(F&& f) {
    lease_.run(plan_.threads, f);
  }

 private:
  const Scratch::Frame frame_;
  const Kernels<T>& kernels_;
  Lease lease_;
  const Plan plan_;
  Barrier barrier_;
  const Call<T> call_;
};

}  // namespace bptt
