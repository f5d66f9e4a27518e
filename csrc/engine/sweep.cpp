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
      cell_(shape_of(problem.cell)),
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
      inputs_(problem, kernels, inputs.record.y, block_rows_, plan.rows_at_once),
      plane_(block_rows_ * padded_hidden_),
      delta_(2 * cell_.deltas() * plane_) {
  if (cell_.gated()) {
    ds_ = Buffer<T>(plan.rows_at_once * padded_hidden_);
    carry_ = Buffer<T>(plan.rows_at_once * padded_hidden_);
    if (in_.sums) gates_ = Buffer<T>(block_rows_ * cell_.saved * problem.hidden);
  }
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
  T* halves[2] = {delta_.get(), delta_.get() + cell_.deltas() * plane_};
  return {{number, steps, batch}, halves[number % 2], halves[(number + 1) % 2]};
}

template <class T>
void BackwardSweep<T>::read_out(const Block& block, Part part) {
  readout_->run(block, in_.record.y, part.member, part.members);
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
  Pointwise<T> pointwise;  // of an Elman cell
  GatesBackward<T> gates;  // of a gated one
  T* delta;                // da_t
};

template <class T>
void BackwardSweep<T>::run_pointwise(const Step& step) const {
  const CellKernels<T>& cell = kernels_.cells[static_cast<int>(problem_.cell)];
  cell_.gated() ? cell.gates_backward(step.gates) : cell.backward(step.pointwise);
}

// dL/dS_t of a step, between its product and its pointwise pass; and dL/dc_t.
template <class T>
void BackwardSweep<T>::write_state_gradient(const Place& block, const Step& step, Index t,
                                            Range rows, Range units) const {
  const Problem<T>& p = problem_;
  const Strips<T>& sums = step.product.out;
  const Index lanes = kernels_.lanes;
  for (Index row = 0; row < rows.size(); ++row) {
    const Index out = (t * p.batch + rows.begin + row) * p.hidden;
    T* const ds = gradients_.states + out;
    for (Index u = units.begin; u < units.end; u += lanes) {
      const T* const from = sums.data + u / lanes * sums.strip_stride + row * sums.row_stride;
      std::copy_n(from, std::min(lanes, units.end - u), ds + u);
    }
    if (!cell_.gated()) continue;
    // What is carried is the gradient of the last part of the state.
    const T* const carry = carry_.get() + (rows.begin - block.batch.begin + row) * padded_hidden_;
    T* const last = cell_.states > 1 ? gradients_.memories + out : ds;
    const T* const outside = in_.dc ? in_.dc + out : nullptr;
    for (Index u = units.begin; u < units.end; ++u) {
      const T before = cell_.states == 1 ? ds[u] : outside ? outside[u] : T(0);
      last[u] = before + carry[u];
    }
  }
}

// da_t of every step of the block; false if interrupted.
template <class T>
bool BackwardSweep<T>::recur(const Place& block, int member) {
  const Problem<T>& p = problem_;
  const Range rows = rows_of(block, member);
  const Range units = plan_.units_of(member, shape_, kernels_.product_width);
  const Index step_flops = 2 * rows.size() * units.size() * cell_.gates * p.hidden;
  if (cell_.gated() && block.number + 1 == blocks_) start_carry(block, rows, units);
  if (in_.sums && !compute_gates(block, rows, units)) return false;
  Step step = step_at(block, block.steps.end - 1, rows, units);
  for (Index t = block.steps.end - 1; t >= block.steps.begin; --t) {
    kernels_.product(step.product);
    if (gradients_.states) write_state_gradient(block, step, t, rows, units);
    run_pointwise(step);
    if (plan_.split == Split::hidden && !barrier_.wait()) return false;
    interrupt_.progress(step_flops);
    if (interrupt_.stopped()) return false;
    advance(step, block, t - 1, rows);
  }
  return true;
}

// What the forward pass did not save, of the block's steps: its sums again, from the states. False
// if interrupted.
template <class T>
bool BackwardSweep<T>::compute_gates(const Place& block, Range rows, Range units) {
  const Problem<T>& p = problem_;
  const auto compute = kernels_.cells[static_cast<int>(p.cell)].gates_forward;
  const T* const history = cell_.states > 1 ? in_.record.c : in_.record.y;
  for (Index t = block.steps.begin; t < block.steps.end; ++t) {
    const T* previous = t == 0 ? p.state : in_.record.y + (t - 1) * p.batch * p.hidden;
    in_.sums->at(t, previous, nullptr, rows, units, nullptr).run(kernels_);
    GatesForward<T> gates = in_.sums->gates_at(t, history, nullptr, rows, units);
    gates.saved = gates_of(block, t, rows.begin - block.batch.begin);
    compute(gates);
    interrupt_.progress(2 * rows.size() * units.size() * cell_.gates * (p.inputs + p.hidden));
    if (interrupt_.stopped()) return false;
  }
  return true;
}

// Those of a step of the block, from its row b on.
template <class T>
T* BackwardSweep<T>::gates_of(const Block& block, Index t, Index b) {
  return gates_.get() + (block.row_of(t) + b) * cell_.saved * problem_.hidden;
}

// What comes after the last step: dL/dc of the final state, or nothing.
template <class T>
void BackwardSweep<T>::start_carry(const Block& block, Range rows, Range units) {
  for (Index b = rows.begin; b < rows.end; ++b) {
    T* const carry = carry_.get() + (b - block.batch.begin) * padded_hidden_;
    const T* const last = in_.last_c ? in_.last_c + b * problem_.hidden : nullptr;
    for (Index u = units.begin; u < units.end; ++u) carry[u] = last ? last[u] : T(0);
    if (units.end < problem_.hidden) continue;
    // Kernels read whole vectors, whatever they make of what is behind the last unit.
    T* const ds = ds_.get() + (b - block.batch.begin) * padded_hidden_;
    for (Index u = units.end; u < padded_hidden_; ++u) carry[u] = ds[u] = T(0);
  }
}

// da_t from dL/dS_t = dy_t + W_sᵀ da_{t+1}, of this member's rows and units. An Elman cell's is in
// place.
template <class T>
typename BackwardSweep<T>::Step BackwardSweep<T>::step_at(const Place& block, Index t, Range rows,
                                                          Range units) {
  const Problem<T>& p = problem_;
  const Index lanes = kernels_.lanes, b = rows.begin - block.batch.begin;
  T* const da = block.delta + (block.row_of(t) + b) * lanes;
  const Strips<T> delta{da, block_rows_ * lanes, lanes};
  const Strips<T> ds{ds_.get() + b * padded_hidden_, lanes, padded_hidden_};
  const Strips<T>& out = cell_.gated() ? ds : delta;
  const Strips<const T> dy = state_gradient(block, t, rows);
  Step step{{rows.size(), p.hidden, units.begin, units.end, {}, {}, out, dy}, {}, {}, da};
  if (t + 1 < p.steps) read_deltas(step.product, block.later, b);  // then it is the block's last
  if (cell_.gated()) {
    step.gates = gates_at(block, t, rows, units);
  } else {
    step.pointwise = {rows.size(), units.begin, units.end, states(t, rows), delta};
  }
  fetch_next(step, block, t, rows);
  return step;
}

template <class T>
GatesBackward<T> BackwardSweep<T>::gates_at(const Place& block, Index t, Range rows, Range units) {
  const Problem<T>& p = problem_;
  const Index row = t * p.batch + rows.begin, b = rows.begin - block.batch.begin;
  const bool two = cell_.states > 1;
  const T* const initial = two ? p.c : p.state;
  const T* const history = two ? in_.record.c : in_.record.y;
  return {rows.size(),
          units.begin,
          units.end,
          p.hidden,
          in_.sums ? gates_of(block, t, b) : in_.record.saved + row * cell_.saved * p.hidden,
          t == 0 ? initial + rows.begin * p.hidden : history + (row - p.batch) * p.hidden,
          two ? in_.record.c + row * p.hidden : nullptr,
          in_.dc ? in_.dc + row * p.hidden : nullptr,
          ds_.get() + b * padded_hidden_,
          carry_.get() + b * padded_hidden_,
          padded_hidden_,
          block.delta + (block.row_of(t) + b) * kernels_.lanes,
          plane_,
          block_rows_ * kernels_.lanes};
}

// Makes the step after t that of t, if there is one.
template <class T>
void BackwardSweep<T>::advance(Step& step, const Place& block, Index t, Range rows) const {
  const Problem<T>& p = problem_;
  if (t < block.steps.begin) return;
  const Index state = p.batch * p.hidden;
  read_deltas(step.product, step.delta, 0);
  step.delta -= block.batch.size() * kernels_.lanes;
  step.product.added = cell_.gated() ? state_gradient(block, t, rows) : step.pointwise.next_ds;
  if (cell_.gated()) {
    GatesBackward<T>& gates = step.gates;
    gates.delta = step.delta;
    gates.saved -= (in_.sums ? block.batch.size() * p.hidden : state) * cell_.saved;
    if (gates.c) gates.c -= state;
    if (gates.dc) gates.dc -= state;
    if (t > 0) {
      gates.previous -= state;
    } else {
      gates.previous = (cell_.states > 1 ? p.c : p.state) + rows.begin * p.hidden;
    }
  } else {
    step.product.out.data = step.pointwise.values.data = step.delta;
    step.pointwise.y.data -= state;
  }
  fetch_next(step, block, t, rows);
}

// What the step before t will read, if there is one.
template <class T>
void BackwardSweep<T>::fetch_next(Step& step, const Block& block, Index t, Range rows) const {
  if (t == 0) return;
  if (cell_.gated()) {
    const Index state = problem_.batch * problem_.hidden * cell_.saved;
    step.gates.next_saved = in_.sums ? nullptr : step.gates.saved - state;
    return;
  }
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
  return {in_.record.y + (t * p.batch + rows.begin) * p.hidden, kernels_.lanes, p.hidden};
}

// Of a block's da_t, `delta`, one plane from a row on.
template <class T>
Strips<const T> BackwardSweep<T>::delta_rows(const T* delta, Index plane, Index row) const {
  return {delta + plane * plane_ + row * kernels_.lanes, block_rows_ * kernels_.lanes,
          kernels_.lanes};
}

// W_sᵀ da: one sum over all gates.
template <class T>
void BackwardSweep<T>::read_deltas(Product<T>& product, const T* delta, Index row) const {
  for (Index g = 0; g < cell_.gates; ++g) {
    product.segments[g] = {delta_rows(delta, cell_.recurrent_delta(g), row), problem_.hidden,
                           weights_.w_hh_t[g].get()};
  }
}

template <class T>
void BackwardSweep<T>::pack(const Block& block, Part part) {
  inputs_.pack(block, part.member, part.members);
  if (readout_) readout_->pack_gradient(block, part.member, part.members);
}

// What does not wait for other steps: dx, the weight gradients, and at the end the initial state's.
template <class T>
void BackwardSweep<T>::products(const Place& block, Part part) {
  if (gradients_.x) input_gradient(block, part);
  if (gradients_.deltas) write_deltas(block, part);
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
    Product<T> product{rows, p.inputs, 0, p.inputs, {}, {}, {dx, lanes, p.inputs}, {}};
    product.added = {before, lanes, p.inputs};
    for (Index g = 0; g < cell_.gates; ++g) {
      product.segments[g] = {delta_rows(block.delta, g, row), p.hidden, weights_.w_ih_t[g].get()};
    }
    kernels_.product(product);
  });
}

// da_t as plain arrays.
template <class T>
void BackwardSweep<T>::write_deltas(const Place& block, Part part) {
  const Problem<T>& p = problem_;
  const Index lanes = kernels_.lanes;
  const Range mine = share(block.rows(), kRowGrain, part.member, part.members);
  for_each_run(block, p.batch, mine, [&](Index row, Index array_row, Index rows) {
    for (Index plane = 0; plane < cell_.deltas(); ++plane) {
      T* const out = gradients_.deltas + (plane * p.steps * p.batch + array_row) * p.hidden;
      for (Index unit = 0; unit < p.hidden; unit += lanes) {
        const Strips<const T> strip = delta_rows(block.delta, plane, row);
        const T* from = strip.data + unit / lanes * strip.strip_stride;
        const Index width = std::min(lanes, p.hidden - unit);
        for (Index r = 0; r < rows; ++r, from += lanes) {
          std::copy_n(from, width, out + r * p.hidden + unit);
        }
      }
    }
  });
}

template <class T>
void BackwardSweep<T>::weight_gradients(const Place& block, Part part) {
  const Index outputs = in_.objective ? in_.objective->outputs : 0;
  const Index columns = cell_.gates * (2 * problem_.inputs + problem_.hidden) + outputs;
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
  const auto delta = [&](Index plane, Index t) {
    return delta_rows(block.delta, plane, block.row_of(t) + batch.begin - block.batch.begin);
  };
  // One gate's rows of a weight gradient, from its deltas at some steps and what they meet.
  const auto add = [&](Index plane, Range some, const Operand<T>& right, Index columns, T* out) {
    if (!out || some.size() <= 0) return;
    kernels_.outer({{some.size(), batch.size()},
                    delta(plane, some.begin),
                    step,
                    units.begin,
                    units.end,
                    right.matrix,
                    right.first,
                    right.step,
                    columns,
                    out,
                    columns});
  };
  const Range later{std::max<Index>(steps.begin, 1), steps.end};
  for (Index gate = 0; gate < cell_.gates; ++gate) {
    const Index recurrent = cell_.recurrent_delta(gate);
    T* const w_ih = g.w_ih ? g.w_ih + gate * hidden * inputs : nullptr;
    T* const w_hh = g.w_hh ? g.w_hh + gate * hidden * hidden : nullptr;
    add(gate, steps, inputs_.x(block, steps.begin, batch.begin), inputs, w_ih);
    if (steps.begin == 0) {
      add(recurrent, {0, 1}, inputs_.previous(block, 0, batch.begin), hidden, w_hh);
    }
    add(recurrent, later, inputs_.previous(block, later.begin, batch.begin), hidden, w_hh);
  }
  for (Index plane = 0; plane < cell_.deltas(); ++plane) {
    T *b_ih = nullptr, *b_hh = nullptr;
    for (Index gate = 0; gate < cell_.gates; ++gate) {
      if (g.b_ih && gate == plane) b_ih = g.b_ih + gate * hidden;
      if (g.b_hh && cell_.recurrent_delta(gate) == plane) b_hh = g.b_hh + gate * hidden;
    }
    kernels_.column_sums({{steps.size(), batch.size()},
                          delta(plane, steps.begin),
                          step,
                          units.begin,
                          units.end,
                          {b_ih, b_hh}});
  }
  if (readout_) {
    readout_->add_gradients(block, batch, steps, inputs_, g, part.member, part.members);
  }
}

// dS_{-1} = W_sᵀ da_0, and what a gated cell carried past step 0: part of it, or dc_{-1}.
template <class T>
void BackwardSweep<T>::initial_state_gradient(const Place& block, Part part) {
  const Problem<T>& p = problem_;
  const Index lanes = kernels_.lanes, first = block.batch.begin * p.hidden;
  const bool add = gradients_.write == Write::add;
  const Range units = share(p.hidden, kernels_.product_width, part.member, part.members);
  T* const out = gradients_.state + first;
  Product<T> product{block.batch.size(),
                     p.hidden,
                     units.begin,
                     units.end,
                     {},
                     {},
                     {out, lanes, p.hidden},
                     {add ? out : nullptr, lanes, p.hidden}};
  read_deltas(product, block.delta, 0);
  kernels_.product(product);
  if (!cell_.gated()) return;
  T* const carried = cell_.states > 1 ? gradients_.c + first : out;
  for (Index b = 0; b < block.batch.size(); ++b) {
    for (Index u = units.begin; u < units.end; ++u) {
      T& value = carried[b * p.hidden + u];
      const bool adds = add || cell_.states == 1;
      value = (adds ? value : T(0)) + carry_.get()[b * padded_hidden_ + u];
    }
  }
}

template class BackwardSweep<float>;
template class BackwardSweep<double>;

}  // namespace bptt
