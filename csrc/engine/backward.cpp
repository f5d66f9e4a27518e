#include "engine/backward.h"

#include <algorithm>

namespace bptt {
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
      w_ih_t_(kernels, kernels.product_width, problem.inputs, problem.hidden),
      w_hh_t_(kernels, kernels.product_width, problem.hidden, problem.hidden),
      x_(kernels, kernels.outer_width, problem.inputs, block_rows_),
      s_(kernels, kernels.outer_width, problem.hidden, block_rows_ + problem.batch),
      delta_(2 * block_rows_ * padded_hidden_) {
  clear();
}

// Sets the sums to zero, unless they go on, and joins dy and dstate at the last step.
template <class T>
void BackwardPass<T>::clear() {
  const Problem<T>& p = problem_;
  const Gradients<T>& g = gradients_;
  if (g.write == Write::overwrite) {
    std::fill_n(g.w_ih, p.hidden * p.inputs, T(0));
    std::fill_n(g.w_hh, p.hidden * p.hidden, T(0));
    for (T* bias : {g.b_ih, g.b_hh}) {
      if (bias) std::fill_n(bias, p.hidden, T(0));
    }
  }
  if (p.steps == 0) {  // the final state is the initial one
    for (Index i = 0; i < p.batch * p.hidden; ++i) {
      const T before = g.write == Write::add ? g.state[i] : T(0);
      g.state[i] = incoming_.dstate ? before + incoming_.dstate[i] : before;
    }
  } else if (incoming_.dstate) {
    last_ = Buffer<T>(p.batch * padded_hidden_);
    const T* dy = incoming_.dy ? incoming_.dy + (p.steps - 1) * p.batch * p.hidden : nullptr;
    for (Index b = 0; b < p.batch; ++b) {
      for (Index h = 0; h < p.hidden; ++h) {
        const Index i = b * p.hidden + h;
        last_.get()[b * padded_hidden_ + h] = incoming_.dstate[i] + (dy ? dy[i] : T(0));
      }
    }
  }
}

template <class T>
void BackwardPass<T>::run(int member) {
  const Index blocks = (problem_.steps + plan_.block_steps - 1) / plan_.block_steps;
  pack_weights(member);
  if (!barrier_.wait()) return;
  for (Index number = blocks - 1; number >= 0; --number) {
    const Block block = block_at(number);
    if (!recur(block, member) || !barrier_.wait()) return;
    pack_inputs(block, member);
    input_gradient(block, member);
    if (!barrier_.wait()) return;
    weight_gradients(block, member);
    if (number == 0) initial_state_gradient(block, member);
    if (member == 0) {
      const Index outputs = incoming_.readout ? incoming_.readout->outputs() : 0;
      const Index columns = problem_.inputs + problem_.hidden + outputs;
      interrupt_.progress(4 * block.rows * problem_.hidden / plan_.threads * columns);
    }
  }
}

template <class T>
typename BackwardPass<T>::Block BackwardPass<T>::block_at(Index number) {
  const Index first = number * plan_.block_steps;
  const Index last = std::min(first + plan_.block_steps, problem_.steps);
  T* halves[2] = {delta_.get(), delta_.get() + block_rows_ * padded_hidden_};
  return {first, last, (last - first) * problem_.batch, halves[number % 2],
          halves[(number + 1) % 2]};
}

template <class T>
void BackwardPass<T>::pack_weights(int member) {
  const Problem<T>& p = problem_;
  w_ih_t_.pack({p.w_ih, 1, p.inputs, p.hidden}, 0, member, plan_.threads);
  w_hh_t_.pack({p.w_hh, 1, p.hidden, p.hidden}, 0, member, plan_.threads);
  if (incoming_.readout) incoming_.readout->pack_weights(member, plan_.threads);
}

// da_t of every step of the block; false if interrupted.
template <class T>
bool BackwardPass<T>::recur(const Block& block, int member) {
  const Problem<T>& p = problem_;
  if (Readout<T>* readout = incoming_.readout) {
    const T* y = y_ + block.first * p.batch * p.hidden;
    readout->run(block.first, block.last, y, member, plan_.threads);
    if (!barrier_.wait()) return false;
    if (member == 0) readout->sum_losses(block.first, block.last);
  }
  const Range rows = plan_.rows_of(member, shape_);
  const Range units = plan_.units_of(member, shape_, kernels_.product_width);
  const Index step_flops = 2 * rows.size() * units.size() * p.hidden;
  for (Index t = block.last - 1; t >= block.first; --t) {
    step(block, t, rows, units);
    if (plan_.split == Split::hidden && !barrier_.wait()) return false;
    if (member == 0) interrupt_.progress(step_flops);
    if (interrupt_.stopped()) return false;
  }
  return true;
}

// da_t = f'(a_t) (dy_t + W_sᵀ da_{t+1}), of this member's rows and units.
template <class T>
void BackwardPass<T>::step(const Block& block, Index t, Range rows, Range units) {
  const Problem<T>& p = problem_;
  const Index row = (t - block.first) * p.batch + rows.begin;
  const Strips<const T> dy = state_gradient(block, t, rows);
  const Strips<T> delta{block.delta + row * kernels_.lanes, block_rows_ * kernels_.lanes,
                        kernels_.lanes};
  Product<T> product{rows.size(), p.hidden, units.begin, units.end, dy, {}, delta};
  if (t + 1 < p.steps) {
    const Strips<const T> later = t + 1 < block.last ? delta_rows(block.delta, row + p.batch)
                                                     : delta_rows(block.later, rows.begin);
    product.segments[0] = {later, p.hidden, w_hh_t_.get()};
  }
  kernels_.product(product);
  Pointwise<T> pointwise{rows.size(), units.begin, units.end, states(t, rows), delta, {}, {}};
  if (t > 0) pointwise.next_read[0] = states(t - 1, rows);
  if (t > block.first) pointwise.next_read[1] = state_gradient(block, t - 1, rows);
  kernels_.cells[static_cast<int>(p.cell)].backward(pointwise);
}

// What step t gets from outside the recurrence.
template <class T>
Strips<const T> BackwardPass<T>::state_gradient(const Block& block, Index t, Range rows) const {
  const Problem<T>& p = problem_;
  Strips<const T> dy{};
  if (incoming_.readout) {
    dy = incoming_.readout->dy(t, block.first);
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

// The block's x_t and S_{t-1}, and S_t of its last step for the readout's weight gradient.
template <class T>
void BackwardPass<T>::pack_inputs(const Block& block, int member) {
  const Problem<T>& p = problem_;
  const T* x = p.x + block.first * p.batch * p.inputs;
  x_.pack({x, 1, p.inputs, block.rows}, 0, member, plan_.threads);
  const T* before = block.first == 0 ? p.state : y_ + (block.first - 1) * p.batch * p.hidden;
  const T* y = y_ + block.first * p.batch * p.hidden;
  s_.pack({before, 1, p.hidden, p.batch}, 0, member, plan_.threads);
  s_.pack({y, 1, p.hidden, block.rows}, p.batch, member, plan_.threads);
  if (incoming_.readout) {
    incoming_.readout->pack_gradient(block.first, block.last, member, plan_.threads);
  }
}

template <class T>
void BackwardPass<T>::input_gradient(const Block& block, int member) {
  const Problem<T>& p = problem_;
  const Range rows = share(block.rows, kRowGrain, member, plan_.threads);
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

template <class T>
void BackwardPass<T>::weight_gradients(const Block& block, int member) {
  const Problem<T>& p = problem_;
  const Gradients<T>& g = gradients_;
  const Range units = share(p.hidden, kernels_.lanes, member, plan_.threads);
  const Strips<const T> delta = delta_rows(block.delta, 0);
  kernels_.outer({block.rows, delta, units.begin, units.end, x_.get(), x_.rows(), 0, p.inputs,
                  g.w_ih, p.inputs});
  kernels_.outer({block.rows, delta, units.begin, units.end, s_.get(), s_.rows(), 0, p.hidden,
                  g.w_hh, p.hidden});
  for (T* bias : {g.b_ih, g.b_hh}) {
    if (bias) kernels_.column_sums({block.rows, delta, units.begin, units.end, bias});
  }
  if (incoming_.readout) {
    incoming_.readout->add_gradients(block.first, block.last, s_, p.batch, g, member,
                                     plan_.threads);
  }
}

// W_sᵀ da_0
template <class T>
void BackwardPass<T>::initial_state_gradient(const Block& block, int member) {
  const Problem<T>& p = problem_;
  const Range units = share(p.hidden, kernels_.product_width, member, plan_.threads);
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
