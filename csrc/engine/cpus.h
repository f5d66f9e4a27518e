// Which CPUs the members of a team are on, so that no two share one while another is idle.
//
// A worker that wakes on the CPU of another member waits for it: both then run at half their speed,
// and meet at the pace of the scheduler, until its balancer parts them. That takes about 10 ms,
// which is tens of calls; so the worker moves away by itself.
#pragma once

#include <atomic>
#include <deque>

namespace bptt {

class MemberCpus {
 public:
  // Makes room for so many members; nobody may use it meanwhile.
  void grow(int members);

  // The calling member notes where it is; if a member before it is there too, it moves to a CPU
  // without one, if it may. It may go anywhere afterwards: its set of CPUs is as it was.
  void settle(int member);

 private:
  std::deque<std::atomic<int>> cpus_;
};

}  // namespace bptt
