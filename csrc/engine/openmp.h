// Another library's OpenMP runtime, on whose workers the jobs of a team may run.
//
// After a parallel region its workers spin, for milliseconds with libgomp's defaults, and so do
// those of our team: where calls of both take turns, each finds its CPUs taken by the other's
// workers. On the workers of the runtime there is one team, which is awake. Nothing here is linked
// with OpenMP: who loaded a runtime hands over its functions.
#pragma once

namespace bptt {

// By the interface of libgomp, which others have too.
struct OpenMp {
  void (*parallel)(void (*)(void*), void*, unsigned threads, unsigned flags);  // GOMP_parallel
  int (*thread)();                                                             // omp_get_thread_num
  int (*threads)();      // omp_get_num_threads
  int (*max_threads)();  // omp_get_max_threads
};

// From now on jobs of the team that this copy of the engine has put up run there, but not in a
// forked child, where the runtime's workers are not; nowhere again if there is no `parallel`.
// False, and nothing changed, if there is no memory to keep it.
bool run_jobs_on(const OpenMp& runtime) noexcept;

// Calls job(context, 0) ... job(context, members - 1) at once, the first on the calling thread.
// False, and nothing was called, if there is no runtime or it gives fewer threads.
bool run_on_shared_workers(int members, void (*job)(void*, int) noexcept, void* context);

}  // namespace bptt
