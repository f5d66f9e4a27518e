// What the cost model of plan.h takes for a thread of a CPU. The rates are nominal, those of a kind
// of CPU: docs/performance.md has where they come from.
#pragma once

#include <string>
#include <vector>

#include "contract/kernels.h"

namespace bptt {

struct Machine {
  const char* name;
  double flops;          // float32, fused multiply-adds at their peak, a second
  double product_flops;  // the same of large products
  double l1_rate;        // bytes a second that a product reads of weights in each cache
  double l2_rate;
  double l3_rate;       // also of arrays that this cache holds
  double memory_rate;   // bytes a second of a thread, of arrays that no cache holds
  Index l1_bytes;       // what weights can have of that cache
  Index l2_bytes;       // of one thread
  Index near_bytes;     // of arrays in the third-level cache, and of weights that every thread can
                        // as well read whole at each step
  Index fetch_bytes;    // of what is read again and again, above which it is better fetched ahead
  bool packs_split;     // rows whose vectors each lie in two cache lines are better packed
  double step_seconds;  // of a step beside its arithmetic: calls, latencies
  double unit_seconds;  // of a value of the pointwise part, float32
  double barrier_seconds;  // between two threads that are awake; measured before a call (Lease)
  double start_seconds;    // of a job on more than one thread
};

// This CPU with the kernels in use, and the size of the second-level cache that the system tells.
Machine this_machine();

// A CPU of a kind with kernels whose vectors have so many bytes; throws std::invalid_argument if
// the name is none of `machine_kinds`.
Machine machine_of_kind(const std::string& name, Index vector_bytes);
std::vector<std::string> machine_kinds();

}  // namespace bptt
