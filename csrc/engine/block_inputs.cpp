#include "engine/block_inputs.h"

namespace bptt {
namespace {

// Bytes of a row up to which unpacked rows are as fast (docs/performance.md).
constexpr Index kLongestRow = 1 << 10;

}  // namespace

template <class T>
BlockInputs<T>::BlockInputs(const Problem<T>& problem, const Kernels<T>& kernels, const T* y,
                            Index block_rows)
    : problem_(problem), kernels_(kernels), y_(y) {
  const Index width = kernels.outer_width;
  if (packs(problem.inputs)) {
    for (Panels<T>& x : x_) x = {kernels, width, problem.inputs, block_rows};
  }
  if (packs(problem.hidden)) {
    for (Panels<T>& s : s_) s = {kernels, width, problem.hidden, block_rows + problem.batch};
  }
}

template <class T>
bool BlockInputs<T>::packs(Index columns) const {
  return columns % kernels_.lanes != 0 || columns * static_cast<Index>(sizeof(T)) > kLongestRow;
}

template <class T>
void BlockInputs<T>::pack(const TimeBlock& block, int member, int members) {
  const Problem<T>& p = problem_;
  const Index rows = (block.last - block.first) * p.batch;
  if (packs(p.inputs)) {
    const T* x = p.x + block.first * p.batch * p.inputs;
    x_[block.number % 2].pack({x, 1, p.inputs, rows}, 0, member, members);
  }
  if (packs(p.hidden)) {
    const T* y = y_ + block.first * p.batch * p.hidden;
    const T* before = block.first == 0 ? p.state : y - p.batch * p.hidden;
    Panels<T>& s = s_[block.number % 2];
    s.pack({before, 1, p.hidden, p.batch}, 0, member, members);
    s.pack({y, 1, p.hidden, rows}, p.batch, member, members);
  }
}

template <class T>
Operand<T> BlockInputs<T>::x(const TimeBlock& block, Index t) const {
  const Problem<T>& p = problem_;
  if (!packs(p.inputs)) return {{p.x, 1, p.inputs}, t * p.batch};
  return {x_[block.number % 2].columns(), (t - block.first) * p.batch};
}

template <class T>
Operand<T> BlockInputs<T>::previous(const TimeBlock& block, Index t) const {
  const Problem<T>& p = problem_;
  if (packs(p.hidden)) return {s_[block.number % 2].columns(), (t - block.first) * p.batch};
  if (t == 0) return {{p.state, 1, p.hidden}, 0};
  return {{y_, 1, p.hidden}, (t - 1) * p.batch};
}

template <class T>
Operand<T> BlockInputs<T>::states(const TimeBlock& block, Index t) const {
  const Problem<T>& p = problem_;
  if (!packs(p.hidden)) return {{y_, 1, p.hidden}, t * p.batch};
  return {s_[block.number % 2].columns(), (t - block.first + 1) * p.batch};
}

template class BlockInputs<float>;
template class BlockInputs<double>;

}  // namespace bptt
