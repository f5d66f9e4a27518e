// Which rows take part in which step, and where they lie: all that the engine knows of time.
#pragma once

#include <algorithm>

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
// an array of all steps they begin at row(t). A dense batch has all its rows at every step; a
// ragged one says how many rows come before each.
struct Sequence {
  Index steps, batch;
  const Index* offsets = nullptr;  // (T + 1), or null of a dense batch

  bool dense() const { return !offsets; }
  // Also how far the rows of step t + 1 lie from those of t.
  Index active(Index t) const { return offsets ? offsets[t + 1] - offsets[t] : batch; }
  Index row(Index t) const { return offsets ? offsets[t] : t * batch; }
  Index rows() const { return row(steps); }

  // Those of some rows of the batch that take part in step t.
  Range active(Index t, Range some) const {
    if (dense()) return some;
    return {some.begin, std::clamp(active(t), some.begin, some.end)};
  }
  // Those of them whose last step is t; with t = -1, those that have no step.
  Range ending(Index t, Range some) const {
    if (dense() && t >= 0 && t + 1 < steps) return {some.end, some.end};
    const Index now = t < 0 ? batch : active(t), later = t + 1 < steps ? active(t + 1) : 0;
    return {std::clamp(later, some.begin, some.end), std::clamp(now, some.begin, some.end)};
  }
  // Calls f(b, steps) for each row of the batch and the number of steps that it has.
  template <class F>
  void for_each_row(F&& f) const {
    Index t = steps;
    for (Index b = 0; b < batch; ++b) {
      while (t > 0 && active(t - 1) <= b) --t;
      f(b, t);
    }
  }
  // Calls f(t, rows) for the steps of [-1, T), or of some of them, at which rows of the batch end.
  template <class F>
  void for_each_ending(F&& f) const {
    for_each_ending({-1, steps}, f);
  }
  template <class F>
  void for_each_ending(Range some, F&& f) const {
    for (Index t = dense() ? std::max(some.begin, steps - 1) : some.begin; t < some.end; ++t) {
      const Range rows = ending(t, {0, batch});
      if (rows.size() > 0) f(t, rows);
    }
  }
};

// Where a caller has the rows of x, dy, dx, and of the y that is shown: in the order of all steps,
// with nothing between, unless `rows` says otherwise.
struct Places {
  const Index* rows = nullptr;     // (N) the caller's row of each
  const Index* padding = nullptr;  // (paddings) those that no step has
  Index paddings = 0;
  Index spacing = 0;  // from each row of a step to the next; 0 if there is not one for all

  bool moved() const { return rows; }
  Index of(Index row) const { return rows ? rows[row] : row; }
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
  // The state after each row's own last step, (B, H), if that is one of some: of [-1, T).
  void copy_last(Range steps, T* out) const {
    sequence.for_each_ending(steps, [&](Index t, Range rows) {
      std::copy_n(before(t + 1, rows.begin), rows.size() * hidden, out + rows.begin * hidden);
    });
  }
};

}  // namespace bptt
