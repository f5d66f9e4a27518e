#include "engine/block_products.h"

#include <algorithm>

namespace bptt {

template <class T>
BlockProducts<T>::BlockProducts(const Call<T>& call, const BackwardWeights<T>& weights, const T* y,
                                const Deltas<T>& deltas, Readout<T>* readout,
                                const Gradients<T>& gradients, const Trace<T>& trace,
                                SliceGradients<T>& slices, const BlockRows<T>& x, Index block_rows)
    : call_(call),
      weights_(weights),
      deltas_(deltas),
      readout_(readout),
      gradients_(gradients),
      trace_(trace),
      slices_(slices),
      inputs_(call.problem, call.kernels, y, block_rows, call.plan.rows_at_once,
              {gradients.w_ih != nullptr, gradients.w_hh != nullptr, gradients.w_ho != nullptr},
              call.plan.packs_split, x.copies() ? &x : nullptr) {}

template <class T>
void BlockProducts<T>::pack(const Block& block, Member member) {
  inputs_.pack(block, member);
  if (gradients_.of_readout()) readout_->pack_gradient(block, member);
}

template <class T>
void BlockProducts<T>::run(const Block& block, Member member) {
  if (gradients_.x) input_gradient(block, member);
  if (trace_.deltas) write_deltas(block, member);
  if (gradients_.of_layer() || gradients_.of_readout()) weight_gradients(block, member);
  if (block.number == 0 && gradients_.state) initial_state_gradient(block, member);
}

// dx_t = W_xᵀ da_t
template <class T>
void BlockProducts<T>::input_gradient(const Block& block, Member member) {
  const Problem<T>& p = call_.problem;
  const Range mine = member.share(block.rows(), kRowGrain);
  for_each_run(block, p.sequence, mine, [&](Index row, Index array_row, Index rows) {
    T* dx = gradients_.x + (p.places.moved() ? 0 : array_row * p.inputs);
    const T* before = gradients_.write == Write::add ? dx : nullptr;
    Product<T> product{rows, p.inputs, 0, p.inputs, {}, {}, call_.rows(dx, p.inputs), {}};
    product.added = call_.rows(before, p.inputs);
    product.out_rows = p.places.moved() ? p.places.rows + array_row : nullptr;
    product.far = call_.plan.far(p.inputs);
    for (Index g = 0; g < p.cell.gates; ++g) {
      product.segments[g] = {deltas_.rows(block.number, g, row), p.hidden,
                             weights_.w_ih_t[g].get()};
    }
    call_.kernels.product(product);
  });
}

// da_t as plain arrays.
template <class T>
void BlockProducts<T>::write_deltas(const Block& block, Member member) {
  const Problem<T>& p = call_.problem;
  const Index lanes = call_.kernels.lanes;
  const Range mine = member.share(block.rows(), kRowGrain);
  for_each_run(block, p.sequence, mine, [&](Index row, Index array_row, Index rows) {
    for (Index plane = 0; plane < p.cell.deltas(); ++plane) {
      T* const out = trace_.deltas + (plane * p.sequence.rows() + array_row) * p.hidden;
      const Strips<const T> strips = deltas_.rows(block.number, plane, row);
      for (Index unit = 0; unit < p.hidden; unit += lanes) {
        const T* from = strips.data + unit / lanes * strips.strip_stride;
        const Index width = std::min(lanes, p.hidden - unit);
        for (Index r = 0; r < rows; ++r, from += lanes) {
          std::copy_n(from, width, out + r * p.hidden + unit);
        }
      }
    }
  });
}

template <class T>
void BlockProducts<T>::weight_gradients(const Block& block, Member member) {
  const Problem<T>& p = call_.problem;
  const Index columns = p.cell.gates * (2 * p.inputs + p.hidden) + p.outputs;
  for_each_sum(call_.plan, block, [&](Index slice, Range batch, Range steps) {
    add_weight_gradients(block, batch, steps, slices_.of(slice), member);
    const RowGroups sum = groups_of(block, batch, steps);
    call_.interrupt.progress(2 * sum.groups * sum.rows * p.hidden / member.count * columns);
  });
}

template <class T>
Strips<const T> BlockProducts<T>::deltas_of(const Block& block, Index plane, Index t,
                                            Index b) const {
  return deltas_.rows(block.number, plane, block.row_of(t) + b - block.batch.begin);
}

// Adds the sums over some rows of the batch at some steps. The initial state of a dense batch lies
// elsewhere than the others, so step 0 has a recurrent sum of its own.
template <class T>
void BlockProducts<T>::add_weight_gradients(const Block& block, Range batch, Range steps,
                                            const Gradients<T>& g, Member member) {
  const Problem<T>& p = call_.problem;
  const Index inputs = p.inputs, hidden = p.hidden;
  const Range units = member.share(hidden, call_.kernels.lanes);
  // One gate's rows of a weight gradient, from its deltas at some steps and what they meet.
  const auto add = [&](Index plane, Range some, const Operand<T>& right, Index columns, T* out) {
    if (some.size() <= 0) return;
    const RowGroups sum = groups_of(block, batch, some);
    const Index read = sum.groups * sum.rows * columns * static_cast<Index>(sizeof(T));
    call_.kernels.outer({sum, deltas_of(block, plane, some.begin, batch.begin), block.batch.size(),
                         units.begin, units.end, right.matrix, right.first, right.step, columns,
                         out, columns, call_.plan.far_bytes(read)});
  };
  const bool initial = steps.begin == 0 && p.sequence.dense();
  const Range later{initial ? 1 : steps.begin, steps.end};
  for (Index gate = 0; gate < p.cell.gates; ++gate) {
    const Index recurrent = p.cell.recurrent_delta(gate);
    if (g.w_ih) {
      T* const w_ih = g.w_ih + gate * hidden * inputs;
      add(gate, steps, inputs_.x(block, steps.begin, batch.begin), inputs, w_ih);
    }
    if (!g.w_hh) continue;
    T* const w_hh = g.w_hh + gate * hidden * hidden;
    if (initial) {
      add(recurrent, {0, 1}, inputs_.previous(block, 0, batch.begin), hidden, w_hh);
    }
    add(recurrent, later, inputs_.previous(block, later.begin, batch.begin), hidden, w_hh);
  }
  if (g.b_ih || g.b_hh) add_bias_gradients(block, batch, steps, g, units);
  if (g.of_readout()) readout_->add_gradients(block, batch, steps, inputs_, g, member);
}

template <class T>
void BlockProducts<T>::add_bias_gradients(const Block& block, Range batch, Range steps,
                                          const Gradients<T>& g, Range units) {
  const Problem<T>& p = call_.problem;
  for (Index plane = 0; plane < p.cell.deltas(); ++plane) {
    T *b_ih = nullptr, *b_hh = nullptr;
    for (Index gate = 0; gate < p.cell.gates; ++gate) {
      if (g.b_ih && gate == plane) b_ih = g.b_ih + gate * p.hidden;
      if (g.b_hh && p.cell.recurrent_delta(gate) == plane) b_hh = g.b_hh + gate * p.hidden;
    }
    if (!b_ih && !b_hh) continue;
    call_.kernels.column_sums({groups_of(block, batch, steps),
                               deltas_of(block, plane, steps.begin, batch.begin),
                               block.batch.size(),
                               units.begin,
                               units.end,
                               {b_ih, b_hh}});
  }
}

// dS_{-1} = W_sᵀ da_0; what a gated cell carries past step 0 is added by its steps.
template <class T>
void BlockProducts<T>::initial_state_gradient(const Block& block, Member member) {
  const Problem<T>& p = call_.problem;
  const Range units = member.share(p.hidden, call_.kernels.product_width);
  T* const out = gradients_.state + block.batch.begin * p.hidden;
  const T* const before = gradients_.write == Write::add ? out : nullptr;
  Product<T> product{p.sequence.active(0, block.batch).size(),
                     p.hidden,
                     units.begin,
                     units.end,
                     {},
                     {},
                     call_.rows(out, p.hidden),
                     call_.rows(before, p.hidden)};
  deltas_.multiply_recurrent(product, deltas_.rows(block.number, 0, 0).data, weights_);
  call_.kernels.product(product);
}

template class BlockProducts<float>;
template class BlockProducts<double>;

}  // namespace bptt
