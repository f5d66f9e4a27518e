// The sums over time and batch: weight gradients and the loss, one for each slice of the batch.
//
// The first slice's are the caller's arrays; the others are added to them in the end, in their
// order, whoever computed them. Where rows of the batch are wanted apart, each is a slice, whose
// sums are the caller's own of that row; or they are held until the row is through, for their norm.
#pragma once

#include <vector>

#include "engine/call.h"
#include "engine/carried.h"
#include "engine/scratch.h"

namespace bptt {

template <class T>
class SliceGradients {
 public:
  // `in_segments` tells whether all rows go through a part of the time before the next part; if
  // that is another call, the sums are in what is `carried` there.
  SliceGradients(const Call<T>& call, const Gradients<T>& gradients, bool in_segments,
                 Carried<T>* carried = nullptr);

  // One member's part: zero, or for the caller's arrays what they hold if it is to be added to.
  void clear(Member member);

  // Where the slice's weight gradients are added; only those pointers are set.
  Gradients<T> of(Index slice);
  // Before and after the steps of some rows of the batch, which are all one member's; of rows
  // apart.
  void begin(Range rows);
  void end(Range rows);
  CompensatedSum& loss_of(Index slice) { return losses_[slice]; }

  // One member's part, once all slices are complete.
  void reduce(Member member);
  double loss() const;

 private:
  // One of the gradients, as the caller has it and in the sums of other slices.
  struct Array {
    T* gradient;   // of the caller
    Index offset;  // in the sums of a slice
    Index size;
  };
  template <class F>
  void for_each_array(F&& f) const;
  Gradients<T> in_sums(Index place);
  Gradients<T> in_arrays(Index row) const;

  const Gradients<T> gradients_;
  Index lanes_;
  Index w_ih_, w_hh_, b_ih_, b_hh_, w_ho_, b_o_;  // sizes; 0 of what is not wanted
  Index slice_size_, slices_, batch_;
  std::vector<Index> places_;  // in the sums, of each row whose norm is wanted
  const bool resumed_;         // the sums have begun
  T* const sums_;              // (slices held, slice size)
  CompensatedSum* const losses_;
};

}  // namespace bptt
