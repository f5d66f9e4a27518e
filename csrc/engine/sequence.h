// Which rows take part in which step, and where they lie: all that the engine knows of time.
#pragma once

#include "contract/kernels.h"

namespace bptt {

struct Range {
  Index begin, end;
  Index size() const { return end - begin; }
};

inline Index round_up(Index n, Index grain) { return (n + grain - 1) / grain * grain; }

// Rows of a block are shared out in pieces of this many, so that no member is left with a tile or
// two that are nearly empty.
inline constexpr Index kRowGrain = 8;

// Part `i` of `parts` of [0, n), cut at multiples of `grain`.
Range share(Index n, Index grain, int i, int parts);

// One of those who share some work.
struct Member {
  int index, count;

  Range share(Index n, Index grain) const { return bptt::share(n, grain, index, count); }
};

// The rows of step t are the first active(t) of the batch, never more than at the step before. In
// an array of all steps they begin at row(t).
struct Sequence {
  Index steps, batch;

  Index active(Index) const { return batch; }
  Index row(Index t) const { return t * batch; }
  Index rows() const { return row(steps); }
};

// One part of the state, S or c, after each step; and before the first.
template <class T>
struct States {
  const T* initial;  // (B, H)
  const T* rest;     // (rows, H)
  Sequence sequence;
  Index hidden;

  // From row b of the batch on.
  const T* before(Index t, Index b) const {
    return t == 0 ? initial + b * hidden : after(t - 1, b);
  }
  const T* after(Index t, Index b) const { return rest + (sequence.row(t) + b) * hidden; }
  const T* last() const { return before(sequence.steps, 0); }
};

}  // namespace bptt
