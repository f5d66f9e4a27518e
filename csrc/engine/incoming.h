// The gradient that a step gets from outside the recurrence: from the caller's arrays, or from the
// loss of a readout. One place tells it, whatever it comes from.
#pragma once

#include "engine/block_rows.h"
#include "engine/call.h"
#include "engine/readout.h"

namespace bptt {

template <class T>
class Incoming {
 public:
  // `last` (B, padded H) replaces dy at each row's last step, if dstate is given; `readout` gives
  // dy for the steps of its block, or is null.
  Incoming(const Call<T>& call, const StateGradients<T>& given, const T* last,
           const Readout<T>* readout, Index block_rows)
      : call_(call),
        given_(given),
        last_(last),
        readout_(readout),
        dy_(call.problem, given.dy, call.problem.hidden, block_rows, BlockRows<T>::Read::once) {}

  // Whether the caller has other rows; then each member copies its share of a block.
  bool copies() const { return dy_.copies(); }
  void copy(const Block& block, Member member) { dy_.copy(block, member); }

  // dL/dS_t of rows whose last step is t.
  Strips<const T> at_last(const Block& block, Index t, Range rows) const {
    if (!last_) return at(block, t, rows);
    const Index padded = call_.padded(call_.problem.hidden);
    return call_.rows(last_ + rows.begin * padded, padded);
  }

  // dL/dS_t of others; data is null where there is none.
  Strips<const T> at(const Block& block, Index t, Range rows) const {
    if (readout_) {
      Strips<const T> dy = readout_->dy(block, t);
      if (dy.data) dy.data += (rows.begin - block.batch.begin) * dy.row_stride;
      return dy;
    }
    if (!given_.dy || (dy_.copies() && t < block.steps.begin)) return {};
    return dy_.rows(block, t, rows.begin, call_.kernels.lanes);
  }

  // dL/dc_t from row b on, or null; and that of a row's last c, or null.
  const T* dc(Index t, Index b) const {
    const Problem<T>& p = call_.problem;
    return given_.dc ? given_.dc + (p.sequence.row(t) + b) * p.hidden : nullptr;
  }
  const T* last_dc(Index b) const {
    return given_.dstate_c ? given_.dstate_c + b * call_.problem.hidden : nullptr;
  }

 private:
  const Call<T>& call_;
  const StateGradients<T> given_;
  const T* const last_;
  const Readout<T>* const readout_;
  BlockRows<T> dy_;
};

}  // namespace bptt
