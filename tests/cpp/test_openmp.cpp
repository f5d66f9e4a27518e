// Jobs of a team run on the workers of an OpenMP runtime, if it has enough; a forked child does not
// wait for workers that it has not.
#include "engine/openmp.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "check.h"
#include "engine/team.h"

namespace bptt::test {
namespace {

// A runtime whose regions are new threads, as many as are asked for and at most `most`.
unsigned most = 64;
int usual = 4, regions = 0;
unsigned asked = 0;
thread_local int own_number = 0, own_team = 1;

void start(void (*f)(void*), void* context, unsigned threads, unsigned) {
  ++regions;
  asked = threads;
  if (threads > most) threads = most;
  std::vector<std::thread> others;
  const auto enter = [&](unsigned number) {
    own_number = static_cast<int>(number);
    own_team = static_cast<int>(threads);
    f(context);
  };
  for (unsigned number = 1; number < threads; ++number) others.emplace_back(enter, number);
  enter(0);
  for (std::thread& other : others) other.join();
}

const OpenMp kRuntime{start, [] { return own_number; }, [] { return own_team; },
                      [] { return usual; }};

// How many members of a job of so many met at a barrier.
int members_that_met(int members) {
  Lease lease(members);
  Interrupt never([] { return false; });
  Barrier barrier(members, never);
  std::atomic<int> met{0};
  auto work = [&](int) { met += barrier.wait(); };
  lease.run(members, work);
  return met;
}

void a_job_runs_there_with_the_threads_of_other_regions() {
  share_workers(kRuntime);
  regions = 0;
  CHECK_EQUAL(members_that_met(3), 3);
  CHECK_EQUAL(asked, 4U);
  CHECK_EQUAL(members_that_met(6), 6);
  CHECK_EQUAL(asked, 6U);
  CHECK_EQUAL(regions, 2);
}

void a_runtime_with_fewer_threads_leaves_the_job_to_the_team() {
  share_workers(kRuntime);
  most = 2;
  CHECK_EQUAL(members_that_met(3), 3);
  most = 64;
}

void without_a_runtime_the_team_works_again() {
  share_workers({});
  regions = 0;
  CHECK_EQUAL(members_that_met(3), 3);
  CHECK_EQUAL(regions, 0);
}

// ThreadSanitizer cannot follow a child that starts threads after a fork.
#if defined(__SANITIZE_THREAD__)
bool fork_can_be_tested = false;
#else
bool fork_can_be_tested = true;
#endif

void a_forked_child_has_a_team_of_its_own() {
  if (!fork_can_be_tested) return;
  share_workers(kRuntime);
  CHECK_EQUAL(members_that_met(2), 2);
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);  // instead of waiting for ever
    regions = 0;
    _exit(members_that_met(2) == 2 && regions == 0 ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  CHECK_EQUAL(status, 0);
}

}  // namespace
}  // namespace bptt::test

int main(int argc, char** argv) {
  using namespace bptt::test;
  if (argc == 2 && std::string(argv[1]) == "no-fork") fork_can_be_tested = false;
  return run_tests({
      {"a job runs there, with the threads of other regions",
       a_job_runs_there_with_the_threads_of_other_regions},
      {"a runtime with fewer threads leaves the job to the team",
       a_runtime_with_fewer_threads_leaves_the_job_to_the_team},
      {"without a runtime the team works again", without_a_runtime_the_team_works_again},
      {"a forked child has a team of its own", a_forked_child_has_a_team_of_its_own},
  });
}
