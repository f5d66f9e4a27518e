// What enters a cell at each step: b_ih + W_x x_t and b_hh + W_s S_{t-1} of all its gates, as one
// sum or, in a cell that takes them apart, as two.
//
// The gates of a unit lie side by side, vector by vector (contract: `GatesForward`). An Elman
// cell's sums go where its state will be; a gated cell's to scratch.
#pragma once

#include "engine/call.h"
#include "engine/panels.h"

namespace bptt {

// The products of a step. They are prepared once a block, and moved from step to step: with few
// rows a step takes no longer than it would take to prepare them.
template <class T>
struct StepProducts {
  Product<T> products[2];  // segment 0 reads x_t, segment 1 S_{t-1}
  int count;

  void run(const Kernels<T>& kernels) const {
    for (int i = 0; i < count; ++i) kernels.product(products[i]);
  }
  // To the next step, `rows` further in all arrays, of which so many rows are `active`; its x_t is
  // at `x`, unless it is projected, and S_{t-1} at `s`.
  void advance(const T* x, const T* s, Index rows, Index active) {
    for (int i = 0; i < count; ++i) {
      Product<T>& p = products[i];
      p.rows = active;
      p.downward = !p.downward;
      p.init.data += rows * p.init.row_stride;
      if (p.segments[0].k > 0) p.segments[0].a.data = x;
      if (p.segments[1].k > 0) p.segments[1].a.data = s;
    }
  }
};

template <class T>
class Preactivations {
 public:
  // `far`: whether the weights are fetched ahead (contract: `Product`). A gated cell has the sums
  // of at most so many `rows` at a time, at least those of a step.
  Preactivations(const Problem<T>& problem, const Kernels<T>& kernels, bool far = false,
                 Index rows = 0);

  // One member's part; all are done before anything is read.
  void pack(Member member);

  Index padded() const { return padded_; }  // sums of a row, in whole vectors
  Index rows() const { return rows_; }      // at a time

  // b_ih + b_hh + W_x x_t of some units, or where they go apart without b_hh, for some rows of x,
  // side by side; to (rows, padded).
  void project(const T* x, Index rows, Range units, T* projected) const;

  // The products of step t for some rows and units, or of several steps whose rows lie side by
  // side, which are the caller's alone meanwhile: their sums go to scratch that all members share.
  // `x` and `previous` are x_t and S_{t-1} of these rows; `projected`, if not null, is the step's,
  // of all rows; `y` is where an Elman cell's sums of these rows go.
  StepProducts<T> at(Index t, const Strips<const T>& x, const T* previous, const T* projected,
                     Range rows, Range units, T* y) const;

  // Where the sums of a gated cell are then, from row b on: of all its gates; and those that its
  // last gate takes apart, or null.
  const T* sums(const T* projected, Index b) const;
  const T* recurrent(Index b) const;

 private:
  Range columns(Range units) const;
  T* row(Index b) const { return sums_.get() + b * padded_; }

  const Problem<T>& problem_;
  const Kernels<T>& kernels_;
  bool far_;
  Index rows_, padded_;
  Panels<T> w_ih_, w_hh_;   // columns are sums
  Buffer<T> bias_;          // (padded) b_ih + b_hh, or one after the other if they go apart
  mutable Buffer<T> sums_;  // scratch: (rows, padded) of a gated cell; apart two of them
};

}  // namespace bptt
