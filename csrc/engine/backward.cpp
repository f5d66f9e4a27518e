#include "engine/backward.h"

#include <algorithm>

namespace bptt {
namespace {

// Calls f(first, last) for the steps [first, last) cut as their weight gradients are summed, the
// latest first.
template <class F>
void for_each_sum(const Plan& plan, Index first, Index last, F&& f) {
  const Index pieces = (last - first + plan.sum_steps - 1) / plan.sum_steps;
  for (Index i = pieces - 1; i >= 0; --i) {
    const Index begin = first + i * plan.sum_steps;
    f(begin, std::min(begin + plan.sum_steps, last));
  }
}

}  // namespace

template <class T>
BackwardPass<T>::BackwardPass(const Problem<T>& problem, const Kernels<T>& kernels,
                              const Plan& plan, const T* y, const StateGradients<T>& incoming,
                              const Gradients<T>& gradients, Barrier& barrier, Interrupt& interrupt)
    : problem_(problem),
      kernels_(kernels),
      plan_(plan),
      shape_{problem.steps, problem.batch, problem.inputs, problem.hidden},
      y_(y),
      incoming_(incoming),
      gradients_(gradients),
      barrier_(barrier),
      interrupt_(interrupt),
      padded_hidden_(round_up(problem.hidden, kernels.lanes)),
      block_rows_(std::min(plan.block_steps, problem.steps) * problem.batch),
      blocks_((problem.steps + plan.block_steps - 1) / plan.block_steps),
      w_ih_t_(kernels, kernels.product_width, problem.inputs, problem.hidden),
      w_hh_t_(kernels, kernels.product_width, problem.hidden, problem.hidden),
      inputs_(problem, kernels, y, block_rows_),
      delta_(2 * block_rows_ * padded_hidden_) {
  if (incoming.dstate && problem.steps > 0) last_ = Buffer<T>(problem.batch * padded_hidden_);
}

template <class T>
void BackwardPass<T>::run(int member) {
  if (gradients_.write == Write::overwrite) clear(member);
  if (member == 0) join_last_step();
  pack_weights(member);
  if (!barrier_.wait()) return;
  plan_.split == Split::pipeline ? run_pipeline(member) : run_blocks(member);
}

// Sets this member's share of the sums to zero.
template <class T>
void BackwardPass<T>::clear(int member) {
  const Problem<T>& p = problem_;
  const Gradients<T>& g = gradients_;
  const Range units = share(p.hidden, kernels_.lanes, member, plan_.threads);
  std::fill(g.w_ih + units.begin * p.inputs, g.w_ih + units.end * p.inputs, T(0));
  std::fill(g.w_hh + units.begin * p.hidden, g.w_hh + units.end * p.hidden, T(0));
  for (T* bias : {g.b_ih, g.b_hh}) {
    if (bias) std::fill(bias + units.begin, bias + units.end, T(0));
  }
}

// Joins dy and dstate at the last step. Without steps the final state is the initial one.
template <class T>
void BackwardPass<T>::join_last_step() {
  const Problem<T>& p = problem_;
  const T* dstate = incoming_.dstate;
  if (p.steps == 0) {
    T* out = gradients_.state;
    for (Index i = 0; i < p.batch * p.hidden; ++i) {
      const T before = gradients_.write == Write::add ? out[i] : T(0);
      out[i] = dstate ? before + dstate[i] : before;
    }
  } else if (dstate) {
    const T* dy = incoming_.dy ? incoming_.dy + (p.steps - 1) * p.batch * p.hidden : nullptr;
    for (Index b = 0; b < p.batch; ++b) {
      for (Index h = 0; h < p.hidden; ++h) {
        const Index i = b * p.hidden + h;
        last_.get()[b * padded_hidden_ + h] = dstate[i] + (dy ? dy[i] : T(0));
      }
    }
  }
}

template <class T>
void BackwardPass<T>::pack_weights(int member) {
  const Problem<T>& p = problem_;
  w_ih_t_.pack({p.w_ih, 1, p.inputs, p.hidden}, 0, member, plan_.threads);
  w_hh_t_.pack({p.w_hh, 1, p.hidden, p.hidden}, 0, member, plan_.threads);
  if (incoming_.readout) incoming_.readout->pack_weights(member, plan_.threads);
}

// All members recur through a block, meet, and do its products; who is done goes on to the block
// before. What the products read is kept for two blocks, so nobody overwrites it meanwhile.
template <class T>
void BackwardPass<T>::run_blocks(int member) {
  const Part part{member, plan_.threads};
  for (Index number = blocks_ - 1; number >= 0; --number) {
    const Block block = block_at(number);
    if (incoming_.readout) {
      read_out(block, part);
      if (!barrier_.wait()) return;
      if (member == 0) sum_losses(block);
    }
    if (!recur(block, member)) return;
    pack(block, part);
    if (!barrier_.wait()) return;
    products(block, part);
  }
}

// One member recurs through a block, while the other does the products of the block after it in
// time, and the readout of the one before.
template <class T>
void BackwardPass<T>::run_pipeline(int member) {
  const Part part{0, 1};
  for (Index number = blocks_; number >= -1; --number) {
    if (plan_.recurs(member)) {
      if (number >= 0 && number < blocks_ && !recur(block_at(number), member)) return;
    } else {
      if (number + 1 < blocks_) {
        pack(block_at(number + 1), part);
        products(block_at(number + 1), part);
      }
      if (number > 0 && incoming_.readout) {
        read_out(block_at(number - 1), part);
        sum_losses(block_at(number - 1));
      }
    }
    if (!barrier_.wait()) return;
  }
}

template <class T>
typename BackwardPass<T>::Block BackwardPass<T>::block_at(Index number) {
  const Index first = number * plan_.block_steps;
  const Index last = std::min(first + plan_.block_steps, problem_.steps);
  T* halves[2] = {delta_.get(), delta_.get() + block_rows_ * padded_hidden_};
  return {number,
          first,
          last,
          (last - first) * problem_.batch,
          halves[number % 2],
          halves[(number + 1) % 2]};
}

template <class T>
void BackwardPass<T>::read_out(const Block& block, Part part) {
  const T* y = y_ + block.first * problem_.batch * problem_.hidden;
  incoming_.readout->run(block, y, part.member, part.members);
}

// In the order of the weight gradient's sums, which depends on the shape alone.
template <class T>
void BackwardPass<T>::sum_losses(const Block& block) {
  for_each_sum(plan_, block.first, block.last,
               [&](Index first, Index last) { incoming_.readout->sum_losses(block, first, last); });
}

// da_t of every step of the block; false if interrupted.
template <class T>
bool BackwardPass<T>::recur(const Block& block, int member) {
  const Problem<T>& p = problem_;
  const Range rows = plan_.rows_of(member, shape_);
  const Range units = plan_.units_of(member, shape_, kernels_.product_width);
  const Index step_flops = 2 * rows.size() * units.size() * p.hidden;
  const auto chain = kernels_.cells[static_cast<int>(p.cell)].backward;
  Step step = step_at(block, block.last - 1, rows, units);
  for (Index t = block.last - 1; t >= block.first; --t) {
    kernels_.product(step.product);
    chain(step.pointwise);
    if (plan_.split == Split::hidden && !barrier_.wait()) return false;
    if (member == 0) interrupt_.progress(step_flops);
    if (interrupt_.stopped()) return false;
    advance(step, block, t - 1, rows);
  }
  return true;
}

// The two calls of a step, prepared once a block and moved from step to step.
template <class T>
struct BackwardPass<T>::Step {
  Product<T> product;
  Pointwise<T> pointwise;
};

// da_t = f'(a_t) (dy_t + W_sᵀ da_{t+1}), of this member's rows and units.
template <class T>
typename BackwardPass<T>::Step BackwardPass<T>::step_at(const Block& block, Index t, Range rows,
                                                        Range units) const {
  const Problem<T>& p = problem_;
  const Index row = (t - block.first) * p.batch + rows.begin;
  const Strips<T> delta{block.delta + row * kernels_.lanes, block_rows_ * kernels_.lanes,
                        kernels_.lanes};
  const Strips<const T> dy = state_gradient(block, t, rows);
  Step step{{rows.size(), p.hidden, units.begin, units.end, dy, {}, delta},
            {rows.size(), units.begin, units.end, states(t, rows), delta}};
  if (t + 1 < p.steps) {  // then it is the block's last
    step.product.segments[0] = {delta_rows(block.later, rows.begin), p.hidden, w_hh_t_.get()};
  }
  fetch_next(step, block, t, rows);
  return step;
}

// Makes the step after t that of t, if there is one.
template <class T>
void BackwardPass<T>::advance(Step& step, const Block& block, Index t, Range rows) const {
  const Problem<T>& p = problem_;
  if (t < block.first) return;
  step.product.init = state_gradient(block, t, rows);
  step.product.segments[0] = {delta_rows(step.product.out.data, 0), p.hidden, w_hh_t_.get()};
  step.product.out.data -= p.batch * kernels_.lanes;
  step.pointwise.values.data = step.product.out.data;
  step.pointwise.y.data -= p.batch * p.hidden;
  fetch_next(step, block, t, rows);
}

// What the step before t will read.
template <class T>
void BackwardPass<T>::fetch_next(Step& step, const Block& block, Index t, Range rows) const {
  if (t == 0) return;
  step.pointwise.next_y = states(t - 1, rows);
  step.pointwise.next_ds = state_gradient(block, t - 1, rows);
}

// What step t gets from outside the recurrence; a readout tells it for the steps of the block
// alone.
template <class T>
Strips<const T> BackwardPass<T>::state_gradient(const Block& block, Index t, Range rows) const {
  const Problem<T>& p = problem_;
  Strips<const T> dy{};
  if (incoming_.readout) {
    dy = incoming_.readout->dy(block, t);
  } else if (t == p.steps - 1 && incoming_.dstate) {
    dy = {last_.get(), kernels_.lanes, padded_hidden_};
  } else if (incoming_.dy) {
    dy = {incoming_.dy + t * p.batch * p.hidden, kernels_.lanes, p.hidden};
  }
  if (dy.data) dy.data += rows.begin * dy.row_stride;
  return dy;
}

// S_t
template <class T>
Strips<const T> BackwardPass<T>::states(Index t, Range rows) const {
  const Problem<T>& p = problem_;
  return {y_ + (t * p.batch + rows.begin) * p.hidden, kernels_.lanes, p.hidden};
}

template <class T>
Strips<const T> BackwardPass<T>::delta_rows(const T* delta, Index row) const {
  return {delta + row * kernels_.lanes, block_rows_ * kernels_.lanes, kernels_.lanes};
}

template <class T>
void BackwardPass<T>::pack(const Block& block, Part part) {
  inputs_.pack(block, part.member, part.members);
  if (incoming_.readout) incoming_.readout->pack_gradient(block, part.member, part.members);
}

// What does not wait for other steps: dx, the weight gradients, and at the end the initial state's.
template <class T>
void BackwardPass<T>::products(const Block& block, Part part) {
  input_gradient(block, part);
  for_each_sum(plan_, block.first, block.last,
               [&](Index first, Index last) { weight_gradients(block, first, last, part); });
  if (block.number == 0) initial_state_gradient(block, part);
  if (part.member == 0 && plan_.split != Split::pipeline) {
    const Index outputs = incoming_.readout ? incoming_.readout->outputs() : 0;
    const Index columns = problem_.inputs + problem_.hidden + outputs;
    interrupt_.progress(4 * block.rows * problem_.hidden / part.members * columns);
  }
}

// dx_t = W_xᵀ da_t
template <class T>
void BackwardPass<T>::input_gradient(const Block& block, Part part) {
  const Problem<T>& p = problem_;
  const Range rows = share(block.rows, kRowGrain, part.member, part.members);
  T* dx = gradients_.x + (block.first * p.batch + rows.begin) * p.inputs;
  const T* before = gradients_.write == Write::add ? dx : nullptr;
  kernels_.product({rows.size(),
                    p.inputs,
                    0,
                    p.inputs,
                    {before, kernels_.lanes, p.inputs},
                    {{delta_rows(block.delta, rows.begin), p.hidden, w_ih_t_.get()}, {}},
                    {dx, kernels_.lanes, p.inputs}});
}

// Adds the sums over the steps [first, last) of the block. S_{-1} lies elsewhere than the other
// states, so step 0 has a recurrent sum of its own.
template <class T>
void BackwardPass<T>::weight_gradients(const Block& block, Index first, Index last, Part part) {
  const Index batch = problem_.batch, inputs = problem_.inputs, hidden = problem_.hidden;
  const Gradients<T>& g = gradients_;
  const Range units = share(hidden, kernels_.lanes, part.member, part.members);
  const auto delta = [&](Index t) { return delta_rows(block.delta, (t - block.first) * batch); };
  const auto add_recurrent = [&](Index from, Index to) {
    const Operand<T> s = inputs_.previous(block, from);
    kernels_.outer({(to - from) * batch, delta(from), units.begin, units.end, s.matrix, s.row,
                    hidden, g.w_hh, hidden});
  };
  const Operand<T> x = inputs_.x(block, first);
  const Index rows = (last - first) * batch;
  kernels_.outer(
      {rows, delta(first), units.begin, units.end, x.matrix, x.row, inputs, g.w_ih, inputs});
  if (first == 0) add_recurrent(0, 1);
  if (last > 1) add_recurrent(std::max<Index>(first, 1), last);
  kernels_.column_sums({rows, delta(first), units.begin, units.end, {g.b_ih, g.b_hh}});
  if (incoming_.readout) {
    incoming_.readout->add_gradients(block, first, last, inputs_, g, part.member, part.members);
  }
}

// W_sᵀ da_0
template <class T>
void BackwardPass<T>::initial_state_gradient(const Block& block, Part part) {
  const Problem<T>& p = problem_;
  const Range units = share(p.hidden, kernels_.product_width, part.member, part.members);
  const T* before = gradients_.write == Write::add ? gradients_.state : nullptr;
  kernels_.product({p.batch,
                    p.hidden,
                    units.begin,
                    units.end,
                    {before, kernels_.lanes, p.hidden},
                    {{delta_rows(block.delta, 0), p.hidden, w_hh_t_.get()}, {}},
                    {gradients_.state, kernels_.lanes, p.hidden}});
}

template class BackwardPass<float>;
template class BackwardPass<double>;

}  // namespace bptt
