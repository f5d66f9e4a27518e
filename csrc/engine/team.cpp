#include "engine/team.h"

#include <pthread.h>

#include <chrono>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include "engine/cpus.h"
#include "engine/team_table.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace bptt {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kSpinBeforeSleep = std::chrono::microseconds(300);
// How often it is measured what a barrier costs: the least of some probes of some barriers.
// If one is long, somebody had no CPU: that may be over soon.
constexpr auto kProbeAgain = std::chrono::milliseconds(50),
               kProbeSoon = std::chrono::milliseconds(3);
constexpr int kProbes = 4, kProbeBarriers = 8;
constexpr auto kLongProbe = std::chrono::microseconds(50);
// Spins at a barrier before the CPU is offered to others, who may be the ones that are waited for:
// one or two microseconds, about what an exchange takes when every member has a CPU.
constexpr int kSpinsBeforeYield = 64;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

template <class Done>
void spin_until(Done done) {
  for (int spins = 0; !done(); ++spins) {
    if (spins < kSpinsBeforeYield) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
}

}  // namespace

bool Barrier::wait() {
  if (size_ == 1) return !interrupt_.stopped();
  const unsigned phase = phase_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.store(phase + 1, std::memory_order_release);
    return true;
  }
  bool all_arrived = false;
  spin_until([&] {
    all_arrived = phase_.load(std::memory_order_acquire) != phase;
    if (!all_arrived) interrupt_.progress(0);
    return all_arrived || interrupt_.stopped();
  });
  return all_arrived;
}

namespace {

class Team {
 public:
  using Job = TeamTable::Job;

  // A flag and not a mutex: a call within a call, on the same thread, finds it taken.
  std::atomic<bool> leased{false};

  // Makes up to `wanted` members, the caller included; fewer if the system has no more threads or
  // no memory for them.
  int grow(int wanted) noexcept {
    try {
      cpus_of_members_.grow(wanted);
      while (members() < wanted) start_worker();
    } catch (...) {
    }
    return wanted < members() ? wanted : members();
  }

  void run(int size, const FloatControl& control, Job job, void* context) {
    control_ = control;
    job_ = job;
    context_ = context;
    const auto on_shared_worker = [](void* team, int member) noexcept {
      static_cast<Team*>(team)->take_part(member);
    };
    if (run_on_shared_workers(size, on_shared_worker, this)) return;
    running_.store(size - 1, std::memory_order_relaxed);
    cpus_of_members_.settle(0);
    for (int i = 0; i < size - 1; ++i) {
      workers_[static_cast<std::size_t>(i)]->ticket.fetch_add(1, std::memory_order_release);
      workers_[static_cast<std::size_t>(i)]->ticket.notify_one();
    }
    job(context, 0);
    spin_until([&] { return running_.load(std::memory_order_acquire) == 0; });
  }

  // Seconds of a barrier between two members.
  double barrier_seconds() {
    const auto now = Clock::now();
    if (now < probe_again_) return barrier_seconds_;
    Interrupt never([] { return false; });
    Barrier barrier(2, never);
    std::chrono::duration<double> least{1};
    std::atomic<bool> enough{false};  // who waits for a CPU has told what there is to know
    auto meet = [&](int member) {
      for (int probe = 0; probe <= kProbes; ++probe) {  // the first wakes everybody up
        const auto start = Clock::now();
        for (int i = 0; i < kProbeBarriers; ++i) static_cast<void>(barrier.wait());
        const std::chrono::duration<double> seconds = Clock::now() - start;
        if (member == 0 && probe > 0 && seconds < least) least = seconds;
        if (member == 0 && probe > 0 && seconds > kLongProbe) enough = true;
        static_cast<void>(barrier.wait());
        if (enough) break;
      }
    };
    using Meet = decltype(meet);
    run(
        2, float_control(), [](void* f, int member) noexcept { (*static_cast<Meet*>(f))(member); },
        &meet);
    probe_again_ = Clock::now() + (enough ? kProbeSoon : kProbeAgain);
    return barrier_seconds_ = least.count() / kProbeBarriers;
  }

 private:
  struct alignas(64) Worker {
    std::atomic<unsigned> ticket{0};  // counts the jobs this worker takes part in
  };

  int members() const { return static_cast<int>(workers_.size()) + 1; }

  void start_worker() {
    const int member = members();
    Worker& worker = *workers_.emplace_back(std::make_unique<Worker>());
    try {
      std::thread([this, member, &worker] { serve(worker, member); }).detach();
    } catch (...) {
      workers_.pop_back();
      throw;
    }
  }

  [[noreturn]] void serve(Worker& worker, int member) {
    unsigned seen = 0;
    for (;;) {
      wait_for_ticket(worker, seen++);
      take_part(member);
      running_.fetch_sub(1, std::memory_order_release);
    }
  }

  void take_part(int member) {
    cpus_of_members_.settle(member);
    const FloatEnvironment environment(control_);
    job_(context_, member);
  }

  static void wait_for_ticket(Worker& worker, unsigned seen) {
    const auto deadline = Clock::now() + kSpinBeforeSleep;
    while (worker.ticket.load(std::memory_order_acquire) == seen) {
      for (int i = 0; i < 64; ++i) pause();
      if (Clock::now() > deadline) worker.ticket.wait(seen, std::memory_order_acquire);
    }
  }

  std::vector<std::unique_ptr<Worker>> workers_;
  Clock::time_point probe_again_{};
  double barrier_seconds_ = 0;
  MemberCpus cpus_of_members_;
  FloatControl control_{};
  Job job_ = nullptr;
  void* context_ = nullptr;
  alignas(64) std::atomic<int> running_{0};
};

// Never destroyed: workers may outlive static destruction. A forked child has none of its parent's
// threads, so it starts a team of its own.
std::atomic<Team*> current_team{nullptr};

// Null if there is no memory for it.
Team* team() noexcept {
  static const int registered = pthread_atfork(
      nullptr, nullptr, [] { current_team.store(new Team, std::memory_order_release); });
  static_cast<void>(registered);
  Team* team = current_team.load(std::memory_order_acquire);
  if (team) return team;
  try {
    auto fresh = std::make_unique<Team>();
    const bool first =
        current_team.compare_exchange_strong(team, fresh.get(), std::memory_order_acq_rel);
    return first ? fresh.release() : team;
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

constexpr TeamTable kTable{
    [](int wanted, int* members) noexcept -> void* {
      Team* const found = team();
      if (!found || found->leased.exchange(true, std::memory_order_acquire)) return nullptr;
      *members = found->grow(wanted);
      return found;
    },
    [](void* team) noexcept {
      static_cast<Team*>(team)->leased.store(false, std::memory_order_release);
    },
    [](void* team, int members, const FloatControl* control, Team::Job job,
       void* context) noexcept { static_cast<Team*>(team)->run(members, *control, job, context); },
    [](void* team) noexcept { return static_cast<Team*>(team)->barrier_seconds(); },
    [](const OpenMp* runtime) noexcept { return run_jobs_on(*runtime); },
};

const TeamTable& table() { return team_of_process(kTable); }

std::atomic<double> assumed_barrier_seconds{0};

}  // namespace

void share_workers(const OpenMp& runtime) {
  if (!table().share_workers(&runtime)) throw std::bad_alloc();
}

Lease::Lease(int wanted, const FloatControl& control)
    : control_(control), environment_(control), team_(nullptr), size_(1) {
  if (wanted > 1) team_ = table().lease(wanted, &size_);
}

void assume_barrier_seconds(double seconds) { assumed_barrier_seconds = seconds; }

double Lease::barrier_seconds() {
  const double assumed = assumed_barrier_seconds;
  if (assumed > 0 || size_ < 2) return assumed;
  return table().barrier_seconds(team_);
}

Lease::~Lease() {
  if (team_) table().release(team_);
}

void Lease::run(int size, Job job, void* context) {
  if (size == 1) {
    job(context, 0);
  } else {
    table().run(team_, size, &control_, job, context);
  }
}

}  // namespace bptt
