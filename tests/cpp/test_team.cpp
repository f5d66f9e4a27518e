// The team of threads: every member runs once, barriers hold with more members than CPUs, the team
// has one owner at a time, and a forked child gets a team of its own.
//
//     test_team            everything
//     test_team no-fork    nothing that forks: QEMU's emulation of a process with threads cannot
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "check.h"
#include "engine/cpus.h"
#include "engine/team.h"

#if defined(__linux__)
#include <sched.h>
#endif

namespace bptt::test {
namespace {

// More than most machines that run tests have CPUs to spare.
constexpr int kMembers = 7;

bool never_asked() { return false; }

// How many members of a job ran, each once, on a team of up to `wanted`.
int members_that_ran(int wanted) {
  Lease lease(wanted);
  std::vector<std::atomic<int>> runs(static_cast<std::size_t>(lease.size()));
  auto work = [&](int member) { ++runs[static_cast<std::size_t>(member)]; };
  lease.run(lease.size(), work);
  int members = 0;
  for (const std::atomic<int>& count : runs) members += count == 1;
  return members;
}

void every_member_runs_once() {
  for (int wanted : {1, 2, 3, kMembers, 2, 1, kMembers}) {
    CHECK_EQUAL(members_that_ran(wanted), wanted);
  }
}

void no_team_for_one_or_fewer() {
  for (int wanted : {1, 0, -3}) {
    const Lease lease(wanted);
    CHECK_EQUAL(lease.size(), 1);
  }
}

void the_caller_is_member_0() {
  Lease lease(2);
  std::thread::id ran_on[2];
  auto work = [&](int member) { ran_on[member] = std::this_thread::get_id(); };
  lease.run(2, work);
  CHECK(ran_on[0] == std::this_thread::get_id());
  CHECK(ran_on[1] != std::this_thread::get_id());
}

void a_job_may_use_fewer_members_than_the_lease() {
  Lease lease(kMembers);
  for (int members = 1; members <= kMembers; ++members) {
    std::atomic<int> runs{0};
    auto work = [&](int) { ++runs; };
    lease.run(members, work);
    CHECK_EQUAL(runs.load(), members);
  }
}

void nobody_passes_a_barrier_early() {
  constexpr int kPhases = 100;
  Lease lease(kMembers);
  Interrupt interrupt(never_asked);
  Barrier barrier(kMembers, interrupt);
  std::atomic<int> arrived{0}, early{0};
  auto work = [&](int) {
    for (int phase = 1; phase <= kPhases; ++phase) {
      ++arrived;
      early += !barrier.wait();
      early += arrived < phase * kMembers;
      early += !barrier.wait();
    }
  };
  lease.run(kMembers, work);
  CHECK_EQUAL(early.load(), 0);
  CHECK_EQUAL(arrived.load(), kPhases * kMembers);
}

// What one member wrote before a barrier, in plain memory, another reads after it.
void a_barrier_hands_over_memory() {
  constexpr int kPhases = 1000;
  Lease lease(3);
  Interrupt interrupt(never_asked);
  Barrier barrier(3, interrupt);
  int written[2][3] = {};
  std::atomic<int> stale{0};
  auto work = [&](int member) {
    for (int phase = 0; phase < kPhases; ++phase) {
      written[phase % 2][member] = phase;
      stale += !barrier.wait();
      for (int value : written[phase % 2]) stale += value != phase;
    }
  };
  lease.run(3, work);
  CHECK_EQUAL(stale.load(), 0);
}

// Member 0 interrupts and leaves; the others wait for it in vain, and are told so.
void an_interrupt_opens_the_barrier() {
  Lease lease(kMembers);
  Interrupt interrupt([] { return true; });
  Barrier barrier(kMembers, interrupt);
  std::atomic<int> told{0};
  auto work = [&](int member) {
    while (member != 0 && barrier.wait()) {
    }
    while (member == 0 && !interrupt.stopped()) interrupt.progress(1'000'000'000);
    told += interrupt.stopped();
  };
  lease.run(kMembers, work);
  CHECK_EQUAL(told.load(), kMembers);
}

void many_short_jobs() {
  constexpr int kJobs = 20'000;
  int sum[2] = {};
  for (int job = 0; job < kJobs; ++job) {
    Lease lease(2);
    auto work = [&](int member) { sum[member] += member + 1; };
    lease.run(2, work);
  }
  CHECK_EQUAL(sum[0], kJobs);
  CHECK_EQUAL(sum[1], 2 * kJobs);
}

void workers_that_fell_asleep_wake_up() {
  for (int job = 0; job < 20; ++job) {
    CHECK_EQUAL(members_that_ran(3), 3);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

// Holds the team on another thread for as long as it lives.
class OtherOwner {
 public:
  OtherOwner() : thread_([this] { hold(); }) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return holds_; });
  }
  ~OtherOwner() {
    {
      const std::lock_guard lock(mutex_);
      done_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

 private:
  void hold() {
    const Lease lease(2);
    std::unique_lock lock(mutex_);
    holds_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return done_; });
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool holds_ = false, done_ = false;
  std::thread thread_;  // last: it uses the others
};

void a_second_owner_works_alone() {
  {
    const OtherOwner other;
    CHECK_EQUAL(members_that_ran(2), 1);
  }
  CHECK_EQUAL(members_that_ran(2), 2);
}

void owners_compete_and_all_their_jobs_run() {
  std::atomic<int> failed{0};
  std::vector<std::thread> owners;
  for (int owner = 0; owner < 4; ++owner) {
    owners.emplace_back([&] {
      for (int job = 0; job < 500; ++job) {
        const int members = members_that_ran(3);
        failed += members != 1 && members != 3;
      }
    });
  }
  for (std::thread& owner : owners) owner.join();
  CHECK_EQUAL(failed.load(), 0);
}

// ThreadSanitizer cannot follow a child that starts threads after a fork.
#if defined(__SANITIZE_THREAD__)
bool fork_can_be_tested = false;
#else
bool fork_can_be_tested = true;
#endif

// Whether a forked child can run a job of 2 members, and nest a fork of its own.
bool child_runs_a_job(int depth) {
  if (!fork_can_be_tested) {
    std::cout << "skipped: no fork under ThreadSanitizer or QEMU" << std::endl;
    return true;
  }
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);  // instead of waiting for ever
    const bool ran = members_that_ran(2) == 2 && (depth == 1 || child_runs_a_job(depth - 1));
    _exit(ran ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  return status == 0;
}

void a_forked_child_has_a_team_of_its_own() {
  CHECK_EQUAL(members_that_ran(3), 3);
  CHECK(child_runs_a_job(2));
  CHECK_EQUAL(members_that_ran(3), 3);
}

void a_barrier_is_timed_or_assumed() {
  {
    Lease lease(2);
    const double seconds = lease.barrier_seconds();
    CHECK(seconds > 0);
    CHECK_AT_MOST(seconds, 1.0);
    CHECK_EQUAL(lease.barrier_seconds(), seconds);  // not measured again so soon
    assume_barrier_seconds(3.0);
    CHECK_EQUAL(lease.barrier_seconds(), 3.0);
    assume_barrier_seconds(0);
  }
  CHECK_EQUAL(Lease(1).barrier_seconds(), 0.0);
}

#if defined(__linux__)
// Pins the calling thread to one CPU, and then lets it use `allowed` again, where it stays.
void go_to(int cpu, const cpu_set_t& allowed) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(static_cast<unsigned>(cpu), &one);
  CHECK_EQUAL(sched_setaffinity(0, sizeof(one), &one), 0);
  CHECK_EQUAL(sched_setaffinity(0, sizeof(allowed), &allowed), 0);
}

// A member that finds another on its CPU leaves it, and may use the same CPUs as before.
void members_do_not_share_a_cpu() {
  cpu_set_t allowed;
  CHECK_EQUAL(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
  if (CPU_COUNT(&allowed) < 2) return;
  int cpu = 0;
  while (!CPU_ISSET(static_cast<unsigned>(cpu), &allowed)) ++cpu;
  MemberCpus places;
  places.grow(2);
  std::thread([&] {
    go_to(cpu, allowed);
    places.settle(0);
    go_to(cpu, allowed);
    places.settle(1);
    CHECK(sched_getcpu() != cpu);
    cpu_set_t after;
    CHECK_EQUAL(sched_getaffinity(0, sizeof(after), &after), 0);
    CHECK(CPU_EQUAL(&after, &allowed));
  }).join();
}

// With one CPU for all there is nowhere to go.
void members_share_the_only_cpu() {
  std::thread([] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<unsigned>(sched_getcpu()), &one);
    CHECK_EQUAL(sched_setaffinity(0, sizeof(one), &one), 0);
    MemberCpus places;
    places.grow(2);
    places.settle(0);
    places.settle(1);
    cpu_set_t after;
    CHECK_EQUAL(sched_getaffinity(0, sizeof(after), &after), 0);
    CHECK(CPU_EQUAL(&after, &one));
  }).join();
}
#endif

void a_child_forked_while_the_team_is_owned_has_one_too() {
  const OtherOwner other;
  CHECK(child_runs_a_job(1));
}

}  // namespace
}  // namespace bptt::test

int main(int argc, char** argv) {
  using namespace bptt::test;
  if (argc == 2 && std::string(argv[1]) == "no-fork") fork_can_be_tested = false;
  return run_tests({
      {"every member runs once", every_member_runs_once},
      {"no team for one or fewer", no_team_for_one_or_fewer},
      {"the caller is member 0", the_caller_is_member_0},
      {"a job may use fewer members than the lease", a_job_may_use_fewer_members_than_the_lease},
      {"nobody passes a barrier early", nobody_passes_a_barrier_early},
      {"a barrier hands over memory", a_barrier_hands_over_memory},
      {"an interrupt opens the barrier", an_interrupt_opens_the_barrier},
      {"a barrier is timed, or assumed", a_barrier_is_timed_or_assumed},
      {"many short jobs", many_short_jobs},
      {"workers that fell asleep wake up", workers_that_fell_asleep_wake_up},
      {"a second owner works alone", a_second_owner_works_alone},
      {"owners compete and all their jobs run", owners_compete_and_all_their_jobs_run},
#if defined(__linux__)
      {"members do not share a CPU", members_do_not_share_a_cpu},
      {"members share the only CPU", members_share_the_only_cpu},
#endif
      {"a forked child has a team of its own", a_forked_child_has_a_team_of_its_own},
      {"a child forked while the team is owned has one too",
       a_child_forked_while_the_team_is_owned_has_one_too},
  });
}
