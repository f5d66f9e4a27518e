#include "engine/machine.h"

#include <unistd.h>

#include <limits>

#include "dispatch/dispatch.h"

namespace bptt {

const Machine& this_machine() {
  static const Machine machine = [] {
    // A core of a server of 2021 to 2023 at 3.7 GHz: 32 flops and 64, 32, 16 bytes a cycle; eight
    // share a third-level cache.
    Machine m{};
    m.name = "a server core of about 2022";
    m.flops = 118e9;
    m.product_flops = 0.92 * m.flops;
    m.l1_rate = 236e9;
    m.l2_rate = 110e9;
    m.l3_rate = 55e9;
    m.memory_rate = 20e9;
    m.l2_bytes = 512 << 10;
    m.near_bytes = 12 << 20;
    m.fetch_bytes = std::numeric_limits<Index>::max();
    m.step_seconds = 45e-9;
    m.unit_seconds = 0.3e-9;
    m.barrier_seconds = 60e-9;
    m.start_seconds = 25e-6;
#if defined(_SC_LEVEL2_CACHE_SIZE)
    const long l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (l2 > 0) m.l2_bytes = l2;
#endif
    if (far_third_level_cache()) {
      // One of 2023 at 2.5 GHz. Large products reach less of its peak, and cores are far apart.
      m.name = "a core of an Intel server of about 2023";
      m.flops = 155e9;
      m.product_flops = 120e9;
      m.step_seconds = 80e-9;
      m.unit_seconds = 0.45e-9;
      m.barrier_seconds = 220e-9;
      m.l3_rate = 30e9;
      m.near_bytes = m.l2_bytes;
      m.fetch_bytes = m.l2_bytes / 2;
      m.packs_split = true;
    }
    return m;
  }();
  return machine;
}

}  // namespace bptt
