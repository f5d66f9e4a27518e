#include "engine/team_table.h"

#include <dlfcn.h>

#include <atomic>

#if defined(__linux__)
#include <features.h>
#endif

namespace bptt {
namespace {

using Shared = std::atomic<const TeamTable*>;
static_assert(sizeof(Shared) <= 8 && Shared::is_always_lock_free);

}  // namespace

#if defined(__ELF__) && defined(__GLIBC__)
// A unique symbol is the same variable in all objects that the dynamic linker loads, those that it
// hides from each other (RTLD_LOCAL) included. It has to be defined in assembly: of C++ only some
// compilers make such symbols.
asm(".pushsection .bss.bptt_team_1, \"aw\", %nobits\n"
    ".balign 8\n"
    ".globl bptt_team_1\n"
    ".type bptt_team_1, %gnu_unique_object\n"
    ".size bptt_team_1, 8\n"
    "bptt_team_1: .zero 8\n"
    ".popsection\n");
extern "C" __attribute__((visibility("default"))) Shared bptt_team_1;
#else
namespace {
Shared bptt_team_1{nullptr};
}
#endif

namespace {

// To the end of the process, as workers stay in its code; the program itself cannot be unloaded.
void keep_loaded(const void* of_an_object) {
  Dl_info object;
  if (!dladdr(of_an_object, &object)) return;
  static_cast<void>(dlopen(object.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE));
}

}  // namespace

const TeamTable& team_of_process(const TeamTable& own) {
  const TeamTable* first = bptt_team_1.load(std::memory_order_acquire);
  if (first) return *first;
  keep_loaded(&own);
  return bptt_team_1.compare_exchange_strong(first, &own, std::memory_order_acq_rel) ? own : *first;
}

}  // namespace bptt
