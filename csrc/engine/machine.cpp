#include "engine/machine.h"

#include <unistd.h>

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string_view>

#include "dispatch/dispatch.h"

namespace bptt {
namespace {

// A kind of CPU, in cycles of its clock. What is not here is the same of all, or follows.
struct Kind {
  const char* name;
  bool (*is)(const Cpu&);
  double hertz;            // what all cores keep up with multiply-adds
  Index vector_bytes;      // what each of the two units of multiply-adds takes at once
  double product;          // share of the peak that large products reach, passes aside
  double l2_bytes;         // a cycle, that a product reads of weights in that cache
  double l3_bytes;         // the same, and of arrays
  double memory_rate;      // bytes a second of a thread
  double step_cycles;      // calls, and the ends of the chains of multiply-adds and of tanh
  double barrier_seconds;  // where cores share a cache, or do not
  Index l1_size;           // of data
  Index l2_size;           // unless the system tells
  bool far_l3;             // shared by a whole socket, and a third as fast
};

// The one place to add a CPU; the first that fits counts. The numbers are fitted to the runs that
// tests/test_predictions.py holds them against.
constexpr Kind kKinds[] = {
    {.name = "Zen 5",
     .is = [](const Cpu& cpu) { return cpu.vendor == Vendor::amd && cpu.family == 26; },
     .hertz = 4.15e9,
     .vector_bytes = 64,
     .product = 0.93,
     .l2_bytes = 43,
     .l3_bytes = 20,
     .memory_rate = 27e9,
     .step_cycles = 220,
     .barrier_seconds = 60e-9,
     .l1_size = 48 << 10,
     .l2_size = 1 << 20,
     .far_l3 = false},
    {.name = "Zen 4",  // halves of AVX-512, one after the other
     .is =
         [](const Cpu& cpu) { return cpu.vendor == Vendor::amd && cpu.family == 25 && cpu.avx512; },
     .hertz = 3.7e9,
     .vector_bytes = 32,
     .product = 0.91,
     .l2_bytes = 27,
     .l3_bytes = 15,
     .memory_rate = 22e9,
     .step_cycles = 220,
     .barrier_seconds = 60e-9,
     .l1_size = 32 << 10,
     .l2_size = 1 << 20,
     .far_l3 = false},
    {.name = "Intel server",  // timed beside a neighbour on the cores; so is a client with AVX-512
     .is = [](const Cpu& cpu) { return cpu.vendor == Vendor::intel && cpu.avx512; },
     .hertz = 2.5e9,
     .vector_bytes = 64,
     .product = 0.67,
     .l2_bytes = 40,
     .l3_bytes = 12,
     .memory_rate = 11e9,
     .step_cycles = 330,
     .barrier_seconds = 220e-9,
     .l1_size = 48 << 10,
     .l2_size = 2 << 20,
     .far_l3 = true},
};
// A nominal core: no rate is measured for it, so that a plan is the same in each process.
constexpr Kind kUnknown = [] {
  Kind kind = kKinds[1];
  kind.name = "unknown, taken for Zen 4";
  return kind;
}();

// Cycles of a vector in the pointwise part: an elementary function, and its sum out of the tile and
// into it.
constexpr double kUnitCycles = 18;

Machine machine_of(const Kind& kind, Index vector_bytes, bool fused) {
  const auto vector = static_cast<double>(std::min(kind.vector_bytes, vector_bytes));
  Machine m{};
  m.name = kind.name;
  // Two units, two flops for a multiply-add of each float.
  m.flops = kind.hertz * vector * (fused ? 1 : 0.5);
  m.product_flops = kind.product * m.flops;
  m.l1_rate = kind.hertz * 2 * vector;  // two loads a cycle
  m.l2_rate = kind.hertz * kind.l2_bytes;
  m.l3_rate = kind.hertz * kind.l3_bytes;
  m.memory_rate = kind.memory_rate;
  m.l1_bytes = kind.l1_size / 4 * 3;  // the rest is for rows and results
  m.l2_bytes = kind.l2_size;
  m.near_bytes = kind.far_l3 ? kind.l2_size : 12 << 20;
  m.fetch_bytes = kind.far_l3 ? kind.l2_size / 2 : std::numeric_limits<Index>::max();
  m.packs_split = kind.far_l3;
  m.step_seconds = kind.step_cycles / kind.hertz;
  m.unit_seconds = kUnitCycles * sizeof(float) / vector / kind.hertz;
  m.barrier_seconds = kind.barrier_seconds;
  m.start_seconds = 30e-6;
  return m;
}

Kind this_kind() {
  const Cpu cpu = this_cpu();
  Kind found = kUnknown;
  for (const Kind& kind : kKinds) {
    if (!kind.is(cpu)) continue;
    found = kind;
    break;
  }
#if defined(_SC_LEVEL2_CACHE_SIZE)
  const long l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
  if (l2 > 0) found.l2_size = l2;
#endif
  return found;
}

}  // namespace

Machine this_machine() {
  static const Kind kind = this_kind();
  const KernelTable& table = kernel_table();
  const bool fused = std::string_view(table.name) != "generic";
  return machine_of(kind, table.f32.lanes * static_cast<Index>(sizeof(float)), fused);
}

Machine machine_of_kind(const std::string& name, Index vector_bytes) {
  for (const Kind& kind : kKinds) {
    if (name == kind.name) return machine_of(kind, vector_bytes, true);
  }
  std::string known;
  for (const std::string& kind : machine_kinds()) known += (known.empty() ? "" : ", ") + kind;
  throw std::invalid_argument("kind: expected one of " + known + ", got '" + name + "'");
}

std::vector<std::string> machine_kinds() {
  std::vector<std::string> names;
  for (const Kind& kind : kKinds) names.emplace_back(kind.name);
  return names;
}

}  // namespace bptt
