#include "engine/readout.h"

#include <algorithm>

namespace bptt {

template <class T>
ReadoutWeights<T>::ReadoutWeights(const Objective<T>& objective, const Kernels<T>& kernels,
                                  Index hidden)
    : objective_(objective),
      hidden_(hidden),
      w_ho_(kernels, kernels.product_width, objective.outputs, hidden),
      w_ho_t_(kernels, kernels.product_width, hidden, objective.outputs),
      bias_(round_up(objective.outputs, kernels.lanes)) {}

template <class T>
void ReadoutWeights<T>::pack(Member member) {
  const Objective<T>& o = objective_;
  w_ho_.pack({o.w_ho, hidden_, 1, hidden_}, 0, member);
  w_ho_t_.pack({o.w_ho, 1, hidden_, o.outputs}, 0, member);
  if (member.index > 0) return;
  for (Index i = 0; i < o.outputs; ++i) bias_.get()[i] = o.b_o ? o.b_o[i] : T(0);
}

template <class T>
Readout<T>::Readout(const Call<T>& call, const Objective<T>& objective,
                    const ReadoutWeights<T>& weights, Index block_rows, bool pulls_back)
    : problem_(call.problem),
      objective_(objective),
      weights_(weights),
      kernels_(call.kernels),
      padded_outputs_(call.padded(objective.outputs)),
      padded_hidden_(call.padded(call.problem.hidden)),
      block_rows_(block_rows),
      pulls_back_(pulls_back),
      do_strips_(kernels_, kernels_.lanes, objective.outputs, block_rows),
      o_(2 * block_rows * padded_outputs_),
      dy_(pulls_back ? 2 * block_rows * padded_hidden_ : 0),
      losses_(block_rows) {}

// Those of the steps that carry a loss.
template <class T>
Range Readout<T>::loss_steps(Range steps) const {
  const Index step = objective_.step;
  if (step < 0) return steps;
  if (step < steps.begin || step >= steps.end) return {steps.begin, steps.begin};
  return {step, step + 1};
}

template <class T>
Range Readout<T>::loss_rows(const Block& block) const {
  const Range steps = loss_steps(block.steps);
  return {block.row_of(steps.begin), block.row_of(steps.end)};
}

// O_t, then dL/dO_t, of a row of the block.
template <class T>
T* Readout<T>::o(const Block& block, Index row) {
  return o_.get() + (block.number % 2 * block_rows_ + row) * padded_outputs_;
}

template <class T>
void Readout<T>::run(const Block& block, const T* y, Member member) {
  const Range all = loss_rows(block);
  const Range mine = member.share(all.size(), kRowGrain);
  for_each_run(
      block, problem_.sequence, {all.begin + mine.begin, all.begin + mine.end},
      [&](Index row, Index array_row, Index rows) { run_rows(block, y, row, array_row, rows); });
}

template <class T>
void Readout<T>::run_rows(const Block& block, const T* y, Index row, Index array_row, Index rows) {
  const Index lanes = kernels_.lanes, hidden = problem_.hidden, outputs = objective_.outputs;
  T* o = this->o(block, row);
  kernels_.product({rows,
                    outputs,
                    0,
                    outputs,
                    {weights_.bias(), lanes, 0},
                    {{{y + array_row * hidden, lanes, hidden}, hidden, weights_.w_ho()}, {}},
                    {o, lanes, padded_outputs_}});
  // Targets have a row for every loss row; weights always have one for every step.
  const Index step = std::max<Index>(objective_.step, 0);
  const Index target_row = array_row - problem_.sequence.row(step);
  const T* weights = objective_.weights;
  kernels_.losses[static_cast<int>(objective_.loss)](
      {rows, outputs, o, padded_outputs_,
       objective_.target ? objective_.target + target_row * outputs : nullptr,
       objective_.ids ? objective_.ids + target_row : nullptr,
       weights ? weights + array_row : nullptr, static_cast<T>(objective_.scale),
       losses_.get() + row});
  if (!pulls_back_) return;
  const Index dy_row = block.number % 2 * block_rows_ + row;
  kernels_.product({rows,
                    hidden,
                    0,
                    hidden,
                    {},
                    {{{o, lanes, padded_outputs_}, outputs, weights_.w_ho_t()}, {}},
                    {dy_.get() + dy_row * padded_hidden_, lanes, padded_hidden_}});
}

template <class T>
void Readout<T>::sum_losses(const Block& block, Range batch, Range steps,
                            CompensatedSum& sum) const {
  const Range with_loss = loss_steps(steps);
  for (Index t = with_loss.begin; t < with_loss.end; ++t) {
    const double* losses = losses_.get() + block.row_of(t);
    const Range rows = problem_.sequence.active(t, batch);
    for (Index b = rows.begin; b < rows.end; ++b) sum.add(losses[b - block.batch.begin]);
  }
}

template <class T>
Strips<const T> Readout<T>::dy(const Block& block, Index t) const {
  if (t < block.steps.begin || (objective_.step >= 0 && t != objective_.step)) return {};
  const Index row = block.number % 2 * block_rows_ + block.row_of(t);
  return {dy_.get() + row * padded_hidden_, kernels_.lanes, padded_hidden_};
}

template <class T>
void Readout<T>::pack_gradient(const Block& block, Member member) {
  const Range rows = loss_rows(block);
  do_strips_.pack({o(block, rows.begin), 1, padded_outputs_, rows.size()}, rows.begin, member);
}

template <class T>
void Readout<T>::add_gradients(const Block& block, Range batch, Range steps,
                               const BlockInputs<T>& inputs, const Gradients<T>& gradients,
                               Member member) const {
  const Range with_loss = loss_steps(steps);
  if (with_loss.size() == 0) return;
  const Index lanes = kernels_.lanes, hidden = problem_.hidden;
  const Range mine = member.share(objective_.outputs, lanes);
  const Index t = with_loss.begin, row = block.row_of(t) + batch.begin - block.batch.begin;
  const Strips<const T> left{do_strips_.get() + row * lanes, block_rows_ * lanes, lanes};
  const RowGroups sum = groups_of(block, batch, with_loss);
  if (gradients.w_ho) {
    const Operand<T> s = inputs.states(block, t, batch.begin);
    kernels_.outer({sum, left, block.batch.size(), mine.begin, mine.end, s.matrix, s.first, s.step,
                    hidden, gradients.w_ho, hidden});
  }
  if (gradients.b_o) {
    kernels_.column_sums(
        {sum, left, block.batch.size(), mine.begin, mine.end, {gradients.b_o, nullptr}});
  }
}

template class ReadoutWeights<float>;
template class ReadoutWeights<double>;
template class Readout<float>;
template class Readout<double>;

}  // namespace bptt
