// What the cost model of plan.h takes for a thread of this machine.
#pragma once

#include "contract/kernels.h"

namespace bptt {

struct Machine {
  const char* name;
  double flops;          // float32, fused multiply-adds at their peak, a second
  double product_flops;  // the same of large products
  double l1_rate;        // bytes a second that a product reads of weights in each cache
  double l2_rate;
  double l3_rate;
  double memory_rate;   // bytes a second of all threads together
  Index l2_bytes;       // of one thread
  Index near_bytes;     // of weights that every thread can as well read whole at each step
  Index fetch_bytes;    // of what is read again and again, above which it is better fetched ahead
  bool packs_split;     // rows whose vectors each lie in two cache lines are better packed
  double step_seconds;  // of a step beside its arithmetic: calls, latencies
  double unit_seconds;  // of the pointwise part, each unit of a row, float32
  double barrier_seconds;  // between two threads that are awake; measured before a call (Lease)
  double start_seconds;    // of a job on more than one thread
};

// Nominal rates of a core of this kind, and the size of the second-level cache that the system
// tells.
const Machine& this_machine();

}  // namespace bptt
