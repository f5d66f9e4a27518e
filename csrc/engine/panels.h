// A matrix packed into panels, filled by the members of a team, each its own rows.
#pragma once

#include "engine/scratch.h"
#include "engine/sequence.h"

namespace bptt {

// A dense matrix to pack: element (n, k) at data[n * stride_n + k * stride_k].
template <class T>
struct Source {
  const T* data;
  Index stride_n, stride_k;
  Index rows;  // of k
};

template <class T>
class Panels {
 public:
  Panels() = default;
  // `gates` matrices of so many columns and rows, vectors of whose columns lie in turn.
  Panels(const Kernels<T>& kernels, Index width, Index columns, Index rows, Index gates = 1)
      : pack_(kernels.pack),
        width_(width),
        columns_(columns),
        rows_(rows),
        gates_(gates),
        data_(gates * round_up(columns, kernels.lanes) * rows) {}

  // Packs this member's share of the rows of `source`, to rows [row_offset, ...). Where there are
  // several matrices, `source` is the first, and the others follow it.
  void pack(const Source<T>& source, Index row_offset, Member member) {
    const Range mine = member.share(source.rows, kRowGrain);
    pack_({source.data + mine.begin * source.stride_k, source.stride_n, source.stride_k, columns_,
           mine.size(), width_, data_.get(), rows_, row_offset + mine.begin, gates_,
           columns_ * source.stride_n});
  }

  const T* get() const { return data_.get(); }
  Columns<T> columns() const { return {data_.get(), rows_, 0}; }

 private:
  void (*pack_)(const Pack<T>&) = nullptr;
  Index width_ = 0, columns_ = 0, rows_ = 0, gates_ = 1;
  Buffer<T> data_;
};

}  // namespace bptt
