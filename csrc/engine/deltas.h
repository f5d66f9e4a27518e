// da_t of each plane for a block of time and the one after it, which follow each other in turn; in
// strips: (H / lanes)(rows of a block)(lanes).
#pragma once

#include "engine/backward_weights.h"
#include "engine/block.h"
#include "engine/call.h"

namespace bptt {

template <class T>
class Deltas {
 public:
  // A block has at most so many rows.
  Deltas(const Call<T>& call, Index block_rows)
      : problem_(call.problem),
        far_(call.plan.far(call.problem.hidden)),
        lanes_(call.kernels.lanes),
        block_rows_(spread(block_rows)),
        plane_(block_rows_ * call.padded(call.problem.hidden)),
        delta_(2 * problem_.cell.deltas() * plane_) {}

  Index plane_stride() const { return plane_; }
  Index strip_stride() const { return block_rows_ * lanes_; }

  // From a row of the block on; in the first plane, or in another.
  T* at(Index block, Index row) {
    return delta_.get() + block % 2 * problem_.cell.deltas() * plane_ + row * lanes_;
  }
  Strips<const T> rows(Index block, Index plane, Index row) const {
    const T* const first = delta_.get() + block % 2 * problem_.cell.deltas() * plane_;
    return strips(first + plane * plane_ + row * lanes_);
  }
  template <class U>
  Strips<U> strips(U* delta) const {
    return {delta, strip_stride(), lanes_};
  }

  // Those of the first rows of a block to a place of rows (planes, B, H), from its row b on; and
  // from there.
  void copy_out(Index block, Index rows, Index b, T* out) const {
    for_each_piece(rows, b, [&](Index plane, Index from, Index to, Index width) {
      std::copy_n(rows_of(block, plane) + from, width, out + to);
    });
  }
  void copy_in(Index block, Index rows, Index b, const T* in) {
    for_each_piece(rows, b, [&](Index plane, Index to, Index from, Index width) {
      std::copy_n(in + from, width, at(block, 0) + plane * plane_ + to);
    });
  }

  // Makes `product` the sum over all gates of W_sᵀ da, from `delta` on, a place in the first plane;
  // of none along the direct route.
  void multiply_recurrent(Product<T>& product, const T* delta,
                          const BackwardWeights<T>& weights) const {
    if (weights.route == Route::direct) return;
    product.far = far_;
    const CellShape& cell = problem_.cell;
    for (Index g = 0; g < cell.gates; ++g) {
      product.segments[g] = {strips(delta + cell.recurrent_delta(g) * plane_), problem_.hidden,
                             weights.w_hh_t[g].get()};
    }
  }
  // Makes it the same of another `delta`.
  void move(Product<T>& product, const T* delta) const {
    const CellShape& cell = problem_.cell;
    for (Index g = 0; g < cell.gates; ++g) {
      product.segments[g].a.data = delta + cell.recurrent_delta(g) * plane_;
    }
  }

 private:
  // As many rows or a few more, so that the same row of all strips does not fall to a few sets of
  // the first-level cache, as it does where strips are a multiple of 4 KiB apart.
  static constexpr Index spread(Index rows) {
    constexpr Index kGroup = 8, kMore = 3;  // than a multiple of the group
    return rows + (kGroup + kMore - rows % kGroup) % kGroup;
  }

  const T* rows_of(Index block, Index plane) const { return rows(block, plane, 0).data; }

  // f(plane, place in the plane, place in (planes, B, H), values) of all vectors of some rows.
  template <class F>
  void for_each_piece(Index rows, Index b, F&& f) const {
    const Index hidden = problem_.hidden;
    for (Index plane = 0; plane < problem_.cell.deltas(); ++plane) {
      for (Index row = 0; row < rows; ++row) {
        const Index there = (plane * problem_.sequence.batch + b + row) * hidden;
        for (Index unit = 0; unit < hidden; unit += lanes_) {
          f(plane, unit / lanes_ * strip_stride() + row * lanes_, there + unit,
            std::min(lanes_, hidden - unit));
        }
      }
    }
  }

  const Problem<T>& problem_;
  bool far_;
  Index lanes_, block_rows_, plane_;
  Buffer<T> delta_;
};

}  // namespace bptt
