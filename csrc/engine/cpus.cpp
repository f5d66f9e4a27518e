#include "engine/cpus.h"

#if defined(__linux__)
#include <sched.h>
#endif

namespace bptt {

void MemberCpus::grow(int members) {
  while (static_cast<int>(cpus_.size()) < members) cpus_.emplace_back(-1);
}

#if defined(__linux__)

namespace {

// Moves the calling thread to a CPU outside `taken`, if it may use one.
void leave(const cpu_set_t& taken) {
  cpu_set_t allowed, free;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
  CPU_AND(&free, &allowed, &taken);
  CPU_XOR(&free, &free, &allowed);
  // An empty set is refused: then they share.
  if (sched_setaffinity(0, sizeof(free), &free) == 0) {
    sched_setaffinity(0, sizeof(allowed), &allowed);
  }
}

}  // namespace

void MemberCpus::settle(int member) {
  const auto place = [&](int of) -> std::atomic<int>& {
    return cpus_[static_cast<std::size_t>(of)];
  };
  int cpu = sched_getcpu();
  cpu_set_t taken;
  CPU_ZERO(&taken);
  for (int other = 0; other < member; ++other) {
    const int its = place(other).load(std::memory_order_relaxed);
    if (its >= 0 && its < CPU_SETSIZE) CPU_SET(static_cast<unsigned>(its), &taken);
  }
  if (cpu >= 0 && cpu < CPU_SETSIZE && CPU_ISSET(static_cast<unsigned>(cpu), &taken)) {
    leave(taken);
    cpu = sched_getcpu();
  }
  // A store takes the line from all who read it.
  if (place(member).load(std::memory_order_relaxed) != cpu) {
    place(member).store(cpu, std::memory_order_relaxed);
  }
}

#else

void MemberCpus::settle(int) {}

#endif

}  // namespace bptt
