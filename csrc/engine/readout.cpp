#include "engine/readout.h"

#include <algorithm>
#include <cmath>

namespace bptt {
template <class T>
Readout<T>::Readout(const Problem<T>& problem, const Objective<T>& objective,
                    const Kernels<T>& kernels, Index block_rows)
    : problem_(problem),
      objective_(objective),
      kernels_(kernels),
      padded_outputs_(round_up(objective.outputs, kernels.lanes)),
      padded_hidden_(round_up(problem.hidden, kernels.lanes)),
      block_rows_(block_rows),
      w_ho_(kernels, kernels.product_width, objective.outputs, problem.hidden),
      w_ho_t_(kernels, kernels.product_width, problem.hidden, objective.outputs),
      do_strips_(kernels, kernels.lanes, objective.outputs, block_rows),
      bias_(padded_outputs_),
      o_(2 * block_rows * padded_outputs_),
      dy_(2 * block_rows * padded_hidden_),
      losses_(block_rows) {}

template <class T>
void Readout<T>::pack_weights(int member, int members) {
  const Index hidden = problem_.hidden, outputs = objective_.outputs;
  w_ho_.pack({objective_.w_ho, hidden, 1, hidden}, 0, member, members);
  w_ho_t_.pack({objective_.w_ho, 1, hidden, outputs}, 0, member, members);
  if (member > 0) return;
  for (Index o = 0; o < outputs; ++o) bias_.get()[o] = objective_.b_o ? objective_.b_o[o] : T(0);
}

// The rows of the steps [first, last) that carry a loss, counted from the block's first.
template <class T>
Range Readout<T>::loss_rows(const TimeBlock& block, Index first, Index last) const {
  const Index batch = problem_.batch, step = objective_.step;
  if (step >= 0) {
    if (step < first || step >= last) return {0, 0};
    first = step, last = step + 1;
  }
  return {(first - block.first) * batch, (last - block.first) * batch};
}

// O_t, then dL/dO_t, of a row of the block.
template <class T>
T* Readout<T>::o(const TimeBlock& block, Index row) {
  return o_.get() + (block.number % 2 * block_rows_ + row) * padded_outputs_;
}

template <class T>
void Readout<T>::run(const TimeBlock& block, const T* y_block, int member, int members) {
  const Range all = loss_rows(block, block.first, block.last);
  const Range mine = share(all.size(), kRowGrain, member, members);
  const Index row = all.begin + mine.begin, rows = mine.size();
  if (rows == 0) return;
  const Index lanes = kernels_.lanes, hidden = problem_.hidden, outputs = objective_.outputs;
  T* o = this->o(block, row);
  kernels_.product({rows,
                    outputs,
                    0,
                    outputs,
                    {bias_.get(), lanes, 0},
                    {{{y_block + row * hidden, lanes, hidden}, hidden, w_ho_.get()}, {}},
                    {o, lanes, padded_outputs_}});
  // Targets have a row for every loss row; weights always have one for every step.
  const Index target_row = objective_.step < 0 ? block.first * problem_.batch + row : mine.begin;
  const T* weights = objective_.weights;
  kernels_.losses[static_cast<int>(objective_.loss)](
      {rows, outputs, o, padded_outputs_,
       objective_.target ? objective_.target + target_row * outputs : nullptr,
       objective_.ids ? objective_.ids + target_row : nullptr,
       weights ? weights + block.first * problem_.batch + row : nullptr,
       static_cast<T>(objective_.scale), losses_.get() + row});
  kernels_.product({rows,
                    hidden,
                    0,
                    hidden,
                    {},
                    {{{o, lanes, padded_outputs_}, outputs, w_ho_t_.get()}, {}},
                    {dy_.get() + (block.number % 2 * block_rows_ + row) * padded_hidden_, lanes,
                     padded_hidden_}});
}

// Neumaier's compensated sum (1974, ZAMM 54): T * B terms, added one by one.
template <class T>
void Readout<T>::sum_losses(const TimeBlock& block, Index first, Index last) {
  const Range rows = loss_rows(block, first, last);
  for (Index r = rows.begin; r < rows.end; ++r) {
    const double term = losses_.get()[r];
    const double sum = loss_ + term;
    rounded_off_ += std::abs(loss_) >= std::abs(term) ? (loss_ - sum) + term : (term - sum) + loss_;
    loss_ = sum;
  }
}

template <class T>
Strips<const T> Readout<T>::dy(const TimeBlock& block, Index t) const {
  if (t < block.first || (objective_.step >= 0 && t != objective_.step)) return {};
  const Index row = block.number % 2 * block_rows_ + (t - block.first) * problem_.batch;
  return {dy_.get() + row * padded_hidden_, kernels_.lanes, padded_hidden_};
}

template <class T>
void Readout<T>::pack_gradient(const TimeBlock& block, int member, int members) {
  const Range rows = loss_rows(block, block.first, block.last);
  do_strips_.pack({o(block, rows.begin), 1, padded_outputs_, rows.size()}, rows.begin, member,
                  members);
}

template <class T>
void Readout<T>::add_gradients(const TimeBlock& block, Index first, Index last,
                               const BlockInputs<T>& inputs, const Gradients<T>& gradients,
                               int member, int members) {
  const Range rows = loss_rows(block, first, last);
  if (rows.size() == 0) return;
  const Index lanes = kernels_.lanes, hidden = problem_.hidden;
  const Range mine = share(objective_.outputs, lanes, member, members);
  const Strips<const T> left{do_strips_.get() + rows.begin * lanes, block_rows_ * lanes, lanes};
  const Operand<T> s = inputs.states(block, block.first + rows.begin / problem_.batch);
  kernels_.outer(
      {rows.size(), left, mine.begin, mine.end, s.matrix, s.row, hidden, gradients.w_ho, hidden});
  kernels_.column_sums({rows.size(), left, mine.begin, mine.end, {gradients.b_o, nullptr}});
}

template <class T>
double Readout<T>::loss() const {
  const double sum = std::isfinite(rounded_off_) ? loss_ + rounded_off_ : loss_;
  return sum * objective_.scale;
}

template class Readout<float>;
template class Readout<double>;

}  // namespace bptt
