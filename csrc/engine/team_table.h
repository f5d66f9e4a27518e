// The one team of a process, as each copy of this engine in it sees it.
//
// A process may have several: the Python module, the shared library, and what the static one is
// linked into. The copy whose call needs threads first puts the team up, and all others call its C
// functions. They find each other by the variable `bptt_team_1`. Whoever changes what crosses here,
// `FloatControl` and `OpenMp` included, counts up the number in that name: copies with another one
// stay apart, each with a team of its own.
#pragma once

#include "engine/float_environment.h"
#include "engine/openmp.h"

namespace bptt {

struct TeamTable {
  using Job = void (*)(void* context, int member) noexcept;

  // The team, until `release`, with up to `wanted` members; null if another call has it.
  void* (*lease)(int wanted, int* members) noexcept;
  void (*release)(void* team) noexcept;
  // Calls job(context, 0) ... job(context, members - 1) at once, the first on this thread.
  void (*run)(void* team, int members, const FloatControl* control, Job job,
              void* context) noexcept;
  double (*barrier_seconds)(void* team) noexcept;
  // `OpenMp` of whom the jobs run on from now on; false if there was no memory to keep it.
  bool (*share_workers)(const OpenMp* runtime) noexcept;
};

// That of the copy which was first: `own`, if no other was. Its code stays loaded from then on.
// Where the system has no such variables, that is on all but Linux with the GNU C library, it is
// always `own`.
const TeamTable& team_of_process(const TeamTable& own);

}  // namespace bptt
