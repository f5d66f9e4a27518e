#include "engine/sweep.h"

#include <algorithm>

namespace bptt {

template <class T>
BackwardSweep<T>::BackwardSweep(const Problem<T>& problem, const Kernels<T>& kernels,
                                const Plan& plan, const BackwardWeights<T>& weights,
                                const SweepInputs<T>& inputs, const Gradients<T>& gradients,
                                SliceSums<T>& sums, int members, Barrier& barrier,
                                Interrupt& interrupt)
    : problem_(problem),
      kernels_(kernels),
      plan_(plan),
      shape_{problem.steps, problem.batch, problem.inputs, problem.hidden},
      weights_(weights),
      in_(inputs),
      gradients_(gradients),
      sums_(sums),
      members_(members),
      barrier_(barrier),
      interrupt_(interrupt),
      padded_hidden_(round_up(problem.hidden, kernels.lanes)),
      block_rows_(std::min(plan.block_steps, problem.steps) * plan.rows_at_once),
      blocks_((problem.steps + plan.block_steps - 1) / plan.block_steps),
      inputs_(problem, kernels, inputs.y, block_rows_, plan.rows_at_once),
      delta_(2 * block_rows_ * padded_hidden_) {
  if (inputs.objective) {
    readout_.emplace(problem, *inputs.objective, *weights.readout, kernels, block_rows_);
  }
}

template <class T>
bool BackwardSweep<T>::run(Range batch, int member) {
  return plan_.split == Split::pipeline ? run_pipeline(batch, member) : run_blocks(batch, member);
}

// All members recur through a block, meet, and do its products; who is done goes on to the block
// before. What the products read is kept for two blocks, so nobody overwrites it meanwhile; or, of
// the readout's, until all have met after the next block's.
template <class T>
bool BackwardSweep<T>::run_blocks(Range batch, int member) {
  const Part part{member, members_};
  for (Index number = blocks_ - 1; number >= 0; --number) {
    const Place block = block_at(number, batch);
    if (readout_) {
      read_out(block, part);
      if (!barrier_.wait()) return false;
      if (member == 0) sum_losses(block);
    }
    if (!recur(block, member)) return false;
    pack(block, part);
    if (!barrier_.wait()) return false;
    products(block, part);
  }
  return true;
}

// One member recurs through a block, while the other does the products of the block after it in
// time, and the readout of the one before.
template <class T>
bool BackwardSweep<T>::run_pipeline(Range batch, int member) {
  const Part part{0, 1};
  for (Index number = blocks_; number >= -1; --number) {
    if (plan_.recurs(member)) {
      if (number >= 0 && number < blocks_ && !recur(block_at(number, batch), member)) return false;
    } else {
      if (number + 1 < blocks_) {
        const Place block = block_at(number + 1, batch);
        pack(block, part);
        products(block, part);
      }
      if (number > 0 && readout_) {
        const Place block = block_at(number - 1, batch);
        read_out(block, part);
        sum_losses(block);
      }
    }
    if (!barrier_.wait()) return false;
  }
  return true;
}

template <class T>
typename BackwardSweep<T>::Place BackwardSweep<T>::block_at(Index number, Range batch) {
  const Index first = number * plan_.block_steps;
  const Range steps{first, std::min(first + plan_.block_steps, problem_.steps)};
  T* halves[2] = {delta_.get(), delta_.get() + block_rows_ * padded_hidden_};
  return {{number, steps, batch}, halves[number % 2], halves[(number + 1) % 2]};
}

template <class T>
void BackwardSweep<T>::read_out(const Block& block, Part part) {
  readout_->run(block, in_.y, part.member, part.members);
}

template <class T>
void BackwardSweep<T>::sum_losses(const Block& block) {
  for_each_sum(plan_, block, [&](Index slice, Range batch, Range steps) {
    readout_->sum_losses(block, batch, steps, sums_.loss_of(slice));
  });
}

// The rows of a step of the block that are this member's.
template <class T>
Range BackwardSweep<T>::rows_of(const Block& block, int member) const {
  if (members_ == 1 || plan_.split != Split::rows) return block.batch;
  const Range mine = share(block.batch.size(), 1, member, members_);
  return {block.batch.begin + mine.begin, block.batch.begin + mine.end};
}

// The two calls of a step, prepared once a block and moved from step to step.
template <class T>
struct BackwardSweep<T>::Step {
  Product<T> product;
  Pointwise<T> pointwise;
};

// da_t of every step of the block; false if interrupted.
template <class T>
bool BackwardSweep<T>::recur(const Place& block, int member) {
  const Problem<T>& p = problem_;
  const Range rows = rows_of(block, member);
  const Range units = plan_.units_of(member, shape_, kernels_.product_width);
  const Index step_flops = 2 * rows.size() * units.size() * p.hidden;
  const auto chain = kernels_.cells[static_cast<int>(p.cell)].backward;
  Step step = step_at(block, block.steps.end - 1, rows, units);
  for (Index t = block.steps.end - 1; t >= block.steps.begin; --t) {
    kernels_.product(step.product);
    chain(step.pointwise);
    if (plan_.split == Split::hidden && !barrier_.wait()) return false;
    interrupt_.progress(step_flops);
    if (interrupt_.stopped()) return false;
    advance(step, block, t - 1, rows);
  }
  return true;
}

// da_t = f'(a_t) (dy_t + W_sᵀ da_{t+1}), of this member's rows and units.
template <class T>
typename BackwardSweep<T>::Step BackwardSweep<T>::step_at(const Place& block, Index t, Range rows,
                                                          Range units) const {
  const Problem<T>& p = problem_;
  const Index lanes = kernels_.lanes, b = rows.begin - block.batch.begin;
  const Strips<T> delta{block.delta + (block.row_of(t) + b) * lanes, block_rows_ * lanes, lanes};
  const Strips<const T> dy = state_gradient(block, t, rows);
  Step step{{rows.size(), p.hidden, units.begin, units.end, dy, {}, delta},
            {rows.size(), units.begin, units.end, states(t, rows), delta}};
  if (t + 1 < p.steps) {  // then it is the block's last
    step.product.segments[0] = {delta_rows(block.later, b), p.hidden, weights_.w_hh_t.get()};
  }
  fetch_next(step, block, t, rows);
  return step;
}

// Makes the step after t that of t, if there is one.
template <class T>
void BackwardSweep<T>::advance(Step& step, const Place& block, Index t, Range rows) const {
  const Problem<T>& p = problem_;
  if (t < block.steps.begin) return;
  step.product.init = step.pointwise.next_ds;
  step.product.segments[0] = {delta_rows(step.product.out.data, 0), p.hidden,
                              weights_.w_hh_t.get()};
  step.product.out.data -= block.batch.size() * kernels_.lanes;
  step.pointwise.values.data = step.product.out.data;
  step.pointwise.y.data -= p.batch * p.hidden;
  fetch_next(step, block, t, rows);
}

// What the step before t will read, if there is one.
template <class T>
void BackwardSweep<T>::fetch_next(Step& step, const Block& block, Index t, Range rows) const {
  if (t == 0) return;
  step.pointwise.next_y = states(t - 1, rows);
  step.pointwise.next_ds = state_gradient(block, t - 1, rows);
}

// What step t gets from outside the recurrence; a readout tells it for the block's steps alone.
template <class T>
Strips<const T> BackwardSweep<T>::state_gradient(const Block& block, Index t, Range rows) const {
  const Problem<T>& p = problem_;
  const Index lanes = kernels_.lanes;
  if (readout_) {
    Strips<const T> dy = readout_->dy(block, t);
    if (dy.data) dy.data += (rows.begin - block.batch.begin) * dy.row_stride;
    return dy;
  }
  if (in_.last && t == p.steps - 1) {
    return {in_.last + rows.begin * padded_hidden_, lanes, padded_hidden_};
  }
  if (!in_.dy) return {};
  return {in_.dy + (t * p.batch + rows.begin) * p.hidden, lanes, p.hidden};
}

// S_t
template <class T>
Strips<const T> BackwardSweep<T>::states(Index t, Range rows) const {
  const Problem<T>& p = problem_;
  return {in_.y + (t * p.batch + rows.begin) * p.hidden, kernels_.lanes, p.hidden};
}

template <class T>
Strips<const T> BackwardSweep<T>::delta_rows(const T* delta, Index row) const {
  return {delta + row * kernels_.lanes, block_rows_ * kernels_.lanes, kernels_.lanes};
}

template <class T>
void BackwardSweep<T>::pack(const Block& block, Part part) {
  inputs_.pack(block, part.member, part.members);
  if (readout_) readout_->pack_gradient(block, part.member, part.members);
}

// What does not wait for other steps: dx, the weight gradients, and at the end the initial state's.
template <class T>
void BackwardSweep<T>::products(const Place& block, Part part) {
  input_gradient(block, part);
  weight_gradients(block, part);
  if (block.number == 0) initial_state_gradient(block, part);
}

// dx_t = W_xᵀ da_t
template <class T>
void BackwardSweep<T>::input_gradient(const Place& block, Part part) {
  const Problem<T>& p = problem_;
  const Index lanes = kernels_.lanes;
  const Range mine = share(block.rows(), kRowGrain, part.member, part.members);
  for_each_run(block, p.batch, mine, [&](Index row, Index array_row, Index rows) {
    T* dx = gradients_.x + array_row * p.inputs;
    const T* before = gradients_.write == Write::add ? dx : nullptr;
    kernels_.product({rows,
                      p.inputs,
                      0,
                      p.inputs,
                      {before, lanes, p.inputs},
                      {{delta_rows(block.delta, row), p.hidden, weights_.w_ih_t.get()}, {}},
                      {dx, lanes, p.inputs}});
  });
}

template <class T>
void BackwardSweep<T>::weight_gradients(const Place& block, Part part) {
  const Index outputs = in_.objective ? in_.objective->outputs : 0;
  const Index columns = 2 * problem_.inputs + problem_.hidden + outputs;
  for_each_sum(plan_, block, [&](Index slice, Range batch, Range steps) {
    add_weight_gradients(block, batch, steps, sums_.of(slice), part);
    interrupt_.progress(2 * steps.size() * batch.size() * problem_.hidden / part.members * columns);
  });
}

// Adds the sums over some rows of the batch at some steps. S_{-1} lies elsewhere than the other
// states, so step 0 has a recurrent sum of its own.
template <class T>
void BackwardSweep<T>::add_weight_gradients(const Place& block, Range batch, Range steps,
                                            const Gradients<T>& g, Part part) {
  const Index inputs = problem_.inputs, hidden = problem_.hidden;
  const Range units = share(hidden, kernels_.lanes, part.member, part.members);
  const Index step = block.batch.size();
  const auto delta = [&](Index t) {
    return delta_rows(block.delta, block.row_of(t) + batch.begin - block.batch.begin);
  };
  const auto add_recurrent = [&](Range some) {
    if (some.size() <= 0) return;
    const Operand<T> s = inputs_.previous(block, some.begin, batch.begin);
    kernels_.outer({{some.size(), batch.size()},
                    delta(some.begin),
                    step,
                    units.begin,
                    units.end,
                    s.matrix,
                    s.first,
                    s.step,
                    hidden,
                    g.w_hh,
                    hidden});
  };
  const RowGroups all{steps.size(), batch.size()};
  const Operand<T> x = inputs_.x(block, steps.begin, batch.begin);
  kernels_.outer({all, delta(steps.begin), step, units.begin, units.end, x.matrix, x.first, x.step,
                  inputs, g.w_ih, inputs});
  if (steps.begin == 0) add_recurrent({0, 1});
  add_recurrent({std::max<Index>(steps.begin, 1), steps.end});
  kernels_.column_sums({all, delta(steps.begin), step, units.begin, units.end, {g.b_ih, g.b_hh}});
  if (readout_) {
    readout_->add_gradients(block, batch, steps, inputs_, g, part.member, part.members);
  }
}

// W_sᵀ da_0
template <class T>
void BackwardSweep<T>::initial_state_gradient(const Place& block, Part part) {
  const Problem<T>& p = problem_;
  const Index lanes = kernels_.lanes;
  const Range units = share(p.hidden, kernels_.product_width, part.member, part.members);
  T* out = gradients_.state + block.batch.begin * p.hidden;
  const T* before = gradients_.write == Write::add ? out : nullptr;
  kernels_.product({block.batch.size(),
                    p.hidden,
                    units.begin,
                    units.end,
                    {before, lanes, p.hidden},
                    {{delta_rows(block.delta, 0), p.hidden, weights_.w_hh_t.get()}, {}},
                    {out, lanes, p.hidden}});
}

template class BackwardSweep<float>;
template class BackwardSweep<double>;

}  // namespace bptt
