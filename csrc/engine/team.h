// A persistent team of threads, one in a process, and what they meet at.
//
// Workers spin for a moment after a job and then sleep, so that calls in quick succession start in
// less than a microsecond and an idle process uses no CPU. One call has the team at a time: another
// that comes meanwhile, from another Python thread, runs on its own thread alone, which costs no
// oversubscription and no result (bits do not depend on the number of threads).
#pragma once

#include <atomic>
#include <cstddef>

#include "engine/float_environment.h"
#include "engine/interrupt.h"
#include "engine/openmp.h"

namespace bptt {

// Multiply-adds of a member that are worth waking it for.
inline constexpr std::ptrdiff_t kWorkOfMember = 1 << 20;

// All members of a job wait for each other, unless the call is interrupted.
class Barrier {
 public:
  Barrier(int size, Interrupt& interrupt) : size_(size), interrupt_(interrupt) {}

  // False if the call was interrupted: the member must leave the job, the others do so too. Who
  // waits on the calling thread asks meanwhile.
  [[nodiscard]] bool wait();

  int size() const { return size_; }

 private:
  const int size_;
  Interrupt& interrupt_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<unsigned> phase_{0};
};

// From now on jobs run on the workers of `runtime`, in the whole process, but not in a forked
// child, where these are not; nowhere again if it has no `parallel`. Throws if there is no memory.
void share_workers(const OpenMp& runtime);

// For tests: what `Lease::barrier_seconds` tells from now on; 0 to measure again.
void assume_barrier_seconds(double seconds);

// The right to run jobs on up to `wanted` threads, until it is destroyed. Until then the calling
// thread has `control`, as all members have it within their jobs.
class Lease {
 public:
  explicit Lease(int wanted, const FloatControl& control = kFlushSubnormals);
  ~Lease();
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;

  int size() const { return size_; }

  // Seconds that two members take to meet, measured now unless it was in the last 50 ms: about
  // 50 ns where they share a cache, several times that elsewhere or on a busy machine.
  double barrier_seconds();

  // Calls f(0) ... f(members - 1) at once, f(0) on the calling thread; members is at most size(),
  // and f must not throw.
  template <class F>
  void run(int members, F& f) {
    run(
        members, [](void* context, int member) noexcept { (*static_cast<F*>(context))(member); },
        &f);
  }

 private:
  using Job = void (*)(void*, int) noexcept;
  void run(int members, Job job, void* context);

  const FloatControl control_;
  const FloatEnvironment environment_;
  void* team_;  // null: this thread alone
  int size_;
};

}  // namespace bptt
