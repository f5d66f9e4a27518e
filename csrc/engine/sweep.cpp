#include "engine/sweep.h"

#include <algorithm>

namespace bptt {
namespace {

template <class T>
std::optional<Readout<T>> readout_of(const Sweeping<T>& in, Index block_rows) {
  if (!in.incoming.objective) return {};
  return std::optional<Readout<T>>(std::in_place, in.call, *in.incoming.objective,
                                   *in.weights.readout, block_rows, in.recurs());
}

// Whether a sweep reads x.
template <class T>
bool reads_x(const Sweeping<T>& in) {
  return in.sums || in.gradients.w_ih;
}

}  // namespace

template <class T>
BackwardSweep<T>::BackwardSweep(const Sweeping<T>& sweeping, Barrier& barrier)
    : in_(sweeping),
      call_(sweeping.call),
      barrier_(barrier),
      block_rows_(call_.plan.most_rows()),
      recurs_(sweeping.recurs()),
      deltas_(call_, block_rows_),
      readout_(readout_of(sweeping, block_rows_)),
      incoming_(call_, sweeping.incoming, sweeping.last, readout_ ? &*readout_ : nullptr,
                block_rows_),
      x_(call_.problem, reads_x(sweeping) ? call_.problem.x : nullptr, call_.problem.inputs,
         block_rows_, BlockRows<T>::Read::often, 2),
      products_(call_, sweeping.weights, sweeping.record.y, deltas_,
                readout_ ? &*readout_ : nullptr, sweeping.gradients, sweeping.trace,
                sweeping.slices, x_, block_rows_),
      steps_(steps_for({call_, sweeping.weights, sweeping.record, sweeping.sums, incoming_, x_})) {}

template <class T>
typename BackwardSweep<T>::Steps BackwardSweep<T>::steps_for(const BackwardReads<T>& reads) {
  if (call_.problem.cell.gated()) return GatedBackward<T>(reads, deltas_, block_rows_);
  return ElmanBackward<T>(reads, deltas_, block_rows_);
}

template <class T>
bool BackwardSweep<T>::run(const Group& group, Range rows, Range blocks, int member) {
  if (call_.plan.split == Split::pipeline) return run_pipeline(group, member);
  return run_blocks(group, rows, blocks, {member, barrier_.size()});
}

template <class T>
void BackwardSweep<T>::bind(const Record<const T>& record) {
  in_.record = record;
  products_.bind(record.y);
  std::visit([&](auto& policy) { policy.bind(record); }, steps_);
}

template <class T>
void BackwardSweep<T>::resume(const Group& group, Range blocks, Carried<T>& from) {
  const Index after = call_.problem.part.end, b = group.rows.begin;
  if (after == group.sequence.steps) return;
  const Index rows = group.sequence.active(after);
  deltas_.copy_in(blocks.end, rows, b, from.deltas());
  std::visit([&](auto& policy) { policy.resume(rows, b, from.carry()); }, steps_);
}

template <class T>
void BackwardSweep<T>::leave(const Group& group, Range blocks, Carried<T>& to) const {
  const Index rows = group.sequence.active(call_.problem.part.begin), b = group.rows.begin;
  deltas_.copy_out(blocks.begin, rows, b, to.deltas());
  std::visit([&](const auto& policy) { policy.leave(rows, b, to.carry()); }, steps_);
}

// All members recur through a block, meet, and do its products; who is done goes on to the block
// before. What the products read is kept for two blocks, so nobody overwrites it meanwhile; or, of
// the readout's, until all have met after the next block's.
template <class T>
bool BackwardSweep<T>::run_blocks(const Group& group, Range rows, Range blocks, Member member) {
  for (Index number = blocks.end - 1; number >= blocks.begin; --number) {
    const Block block(group, number);
    if (readout_) {
      read_out(block, member);
      if (!barrier_.wait()) return false;
      if (member.index == 0) sum_losses(block);
    }
    if (copies()) {
      copy_rows(block, member);
      if (!barrier_.wait()) return false;
    }
    if (recurs_ && !recur(block, rows, member)) return false;
    products_.pack(block, member);
    if (!barrier_.wait()) return false;
    products(block, member);
  }
  return true;
}

// One member recurs through a block, while the other does the products of the block after it in
// time, and the readout of the one before.
template <class T>
bool BackwardSweep<T>::run_pipeline(const Group& group, int member) {
  constexpr Member alone{0, 1};
  const Index blocks = group.blocks();
  for (Index number = blocks; number >= -1; --number) {
    if (call_.plan.recurs(member)) {
      if (number >= 0 && number < blocks) {
        const Block block(group, number);
        copy_rows(block, alone);
        if (recurs_ && !recur(block, group.rows, alone)) return false;
      }
    } else {
      if (number + 1 < blocks) {
        const Block block(group, number + 1);
        products_.pack(block, alone);
        products(block, alone);
      }
      if (number > 0 && readout_) {
        const Block block(group, number - 1);
        read_out(block, alone);
        sum_losses(block);
      }
    }
    if (!barrier_.wait()) return false;
  }
  return true;
}

// Of x and dy, where the caller has other rows. There are copies of x of two blocks, and one of dy,
// which the recurrence alone reads.
template <class T>
bool BackwardSweep<T>::copies() const {
  return x_.copies() || incoming_.copies();
}

template <class T>
void BackwardSweep<T>::copy_rows(const Block& block, Member member) {
  x_.copy(block, member);
  incoming_.copy(block, member);
}

template <class T>
void BackwardSweep<T>::read_out(const Block& block, Member member) {
  readout_->run(block, in_.record.y, member);
}

template <class T>
void BackwardSweep<T>::sum_losses(const Block& block) {
  for_each_sum(call_.plan, block, [&](Index slice, Range batch, Range steps) {
    readout_->sum_losses(block, batch, steps, in_.slices.loss_of(slice));
  });
}

// da_t of every step of the block, of this member's rows and units; false if interrupted.
template <class T>
bool BackwardSweep<T>::recur(const Block& block, Range rows, Member member) {
  const Range units = call_.plan.units_of(member.index, call_.kernels.product_width);
  return std::visit([&](auto& policy) { return recur(policy, block, rows, units); }, steps_);
}

template <class T>
template <class Policy>
bool BackwardSweep<T>::recur(Policy& policy, const Block& block, Range rows, Range units) {
  const Problem<T>& p = call_.problem;
  const Index row_flops = 2 * units.size() * p.cell.gates * p.hidden;
  Index t = block.steps.end - 1;
  while (t >= block.steps.begin && p.sequence.active(t, rows).size() == 0) --t;
  if (t < block.steps.begin) return true;  // this member's rows end before
  if (!policy.begin(block, rows, units)) return false;
  Range active = p.sequence.active(t, rows);
  auto step = policy.at(block, t, active, units);
  for (;; --t) {
    const Range ending = p.sequence.ending(t, rows);
    if (ending.size() > 0) call_.kernels.product(policy.enter(block, t, ending, units));
    step.product.downward = t % 2 != 0;
    if (step.product.rows > 0) call_.kernels.product(step.product);
    if (in_.trace.dstates) {
      trace_state(step.product.out, t, active, units);
      policy.add_carried(block, t, active, units, in_.trace);
    }
    policy.run(step);
    if (call_.plan.split == Split::hidden && !barrier_.wait()) return false;
    if (!call_.go_on(active.size() * row_flops)) return false;
    if (t == block.steps.begin) return true;
    const Index continuing = active.size();
    active = p.sequence.active(t - 1, rows);
    policy.advance(step, block, t - 1, active);
    step.product.rows = continuing;
  }
}

// dL/dS_t of a step, between its product and its pointwise pass.
template <class T>
void BackwardSweep<T>::trace_state(const Strips<T>& ds, Index t, Range rows, Range units) const {
  const Problem<T>& p = call_.problem;
  const Index lanes = call_.kernels.lanes;
  for (Index row = 0; row < rows.size(); ++row) {
    T* const out = in_.trace.dstates + (p.sequence.row(t) + rows.begin + row) * p.hidden;
    for (Index u = units.begin; u < units.end; u += lanes) {
      const T* const from = ds.data + u / lanes * ds.strip_stride + row * ds.row_stride;
      std::copy_n(from, std::min(lanes, units.end - u), out + u);
    }
  }
}

template <class T>
void BackwardSweep<T>::products(const Block& block, Member member) {
  products_.run(block, member);
  if (block.number > 0 || !recurs_) return;
  const Range units = member.share(call_.problem.hidden, call_.kernels.product_width);
  std::visit([&](auto& policy) { policy.add_carried_to_initial(block, units, in_.gradients); },
             steps_);
}

template class BackwardSweep<float>;
template class BackwardSweep<double>;

}  // namespace bptt
