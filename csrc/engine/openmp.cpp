#include "engine/openmp.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <forward_list>
#include <mutex>
#include <new>

namespace bptt {
namespace {

// What it points to is kept to the end of the process: a call may be under way.
std::atomic<const OpenMp*> shared{nullptr};

const OpenMp* kept(const OpenMp& runtime) {
  static std::mutex mutex;
  static auto& all = *new std::forward_list<OpenMp>;
  const std::lock_guard lock(mutex);
  return &all.emplace_front(runtime);
}

struct Region {
  const OpenMp& runtime;
  const int members;
  void (*const job)(void*, int) noexcept;
  void* const context;
  bool ran = false;  // written by the calling thread alone
};

void enter(void* argument) {
  Region& region = *static_cast<Region*>(argument);
  if (region.runtime.threads() < region.members) return;
  const int member = region.runtime.thread();
  if (member == 0) region.ran = true;
  if (member < region.members) region.job(region.context, member);
}

}  // namespace

bool run_jobs_on(const OpenMp& runtime) noexcept {
  static const int registered = pthread_atfork(nullptr, nullptr, [] { shared.store(nullptr); });
  static_cast<void>(registered);
  try {
    shared.store(runtime.parallel ? kept(runtime) : nullptr, std::memory_order_release);
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

bool run_on_shared_workers(int members, void (*job)(void*, int) noexcept, void* context) {
  const OpenMp* const runtime = shared.load(std::memory_order_acquire);
  if (!runtime) return false;
  Region region{*runtime, members, job, context};
  // As many as the runtime's other regions have: libgomp ends the threads that a smaller one leaves
  // out, and starts new ones for the next.
  const int threads = std::max(members, runtime->max_threads());
  runtime->parallel(enter, &region, static_cast<unsigned>(threads), 0);
  return region.ran;
}

}  // namespace bptt
