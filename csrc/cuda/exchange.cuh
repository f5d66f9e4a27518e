// How the blocks of a group meet, and how what one computes comes to the others: within one block,
// between the shared memories of a cluster, or through the second-level cache.
#pragma once

#include "simd/one_lane.h"

namespace bptt::BPTT_ISA {

// One of the blocks that hold W_hh together.
struct Member {
  int rank, blocks;
  Index group;
  unsigned* counter;  // of the group, zero at the launch; null but for a grid
  unsigned expected = 0;
};

// Of a launch whose first group is `first_group` of all.
BPTT_INLINE Member member_of(int blocks, unsigned* counters, Index first_group = 0) {
  const Index group = first_group + block_index() / blocks;
  return {block_index() % blocks, blocks, group, counters ? counters + group : nullptr};
}

struct OneBlock {
  static constexpr bool kThroughL2 = false, kPeers = false;

  static BPTT_INLINE void meet(Member&) { block_barrier(); }
  template <class T>
  static BPTT_INLINE void store(T* mine, int, T value) {
    *mine = value;
  }
};

struct Cluster {
  static constexpr bool kThroughL2 = false, kPeers = true;

  static BPTT_INLINE void meet(Member&) { cluster_barrier(); }
  template <class T>
  static BPTT_INLINE void store(T* mine, int rank, T value) {
    store_to_peer(mine, rank, value);
  }
};

// All blocks of the launch run at the same time, or they wait for ever.
struct Grid {
  static constexpr bool kThroughL2 = true, kPeers = true;

  static BPTT_INLINE void meet(Member& me) {
    me.expected += static_cast<unsigned>(me.blocks);
    block_barrier();
    if (thread_index() == 0) {
      signal(me.counter);
      await(me.counter, me.expected);
    }
    block_barrier();
  }
};

}  // namespace bptt::BPTT_ISA
