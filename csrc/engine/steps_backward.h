// A step of the recurrence, backward, for some rows and units: first dL/dS_t = dy_t + W_sᵀ
// da_{t+1}, then the da_t that the cell makes of it. One policy for Elman cells, one for gated
// cells.
//
// A step is prepared once a block and moved from step to step: `at` prepares that of step t, and
// `advance` makes the one after t that of t, whose rows may be more. Its product is that of the
// rows that go on to step t + 1; rows whose last step is t have one of their own, from `enter`.
#pragma once

#include "engine/deltas.h"
#include "engine/incoming.h"
#include "engine/steps_forward.h"

namespace bptt {

// What both read.
template <class T>
struct BackwardReads {
  const Call<T>& call;
  const BackwardWeights<T>& weights;
  Record<const T> record;
  const Preactivations<T>* sums;  // to compute again what was not saved, or null
  const Incoming<T>& incoming;
  const BlockRows<T>& x;

  // How many of the rows of step t take part in the next one.
  Index going_on(Index t, Range rows) const {
    const Sequence& sequence = call.problem.sequence;
    return rows.size() - sequence.ending(t, rows).size();
  }

  // dL/dS_t, to `out`, of rows whose last step is t: what comes from outside.
  Product<T> entering(const Block& block, Index t, Range rows, Range units, Strips<T> out) const {
    Product<T> product{rows.size(), call.problem.hidden, units.begin, units.end, {}, {}, out};
    product.added = incoming.at_last(block, t, rows);
    return product;
  }
};

template <class T>
class ElmanBackward {
 public:
  struct Step {
    Product<T> product;
    Pointwise<T> pointwise;  // in place of the product
  };

  ElmanBackward(const BackwardReads<T>& reads, Deltas<T>& deltas, Index)
      : in_(reads), deltas_(deltas), states_(reads.call.problem.states(reads.record.y)) {}

  void bind(const Record<const T>& record) {
    in_.record = record;
    states_ = in_.call.problem.states(record.y);
  }

  bool begin(const Block&, Range, Range) { return true; }

  Step at(const Block& block, Index t, Range rows, Range units) {
    const Problem<T>& p = in_.call.problem;
    const Index b = rows.begin - block.batch.begin;
    const Strips<T> delta = deltas_.strips(deltas_.at(block.number, block.row_of(t) + b));
    Step step{{in_.going_on(t, rows),
               p.hidden,
               units.begin,
               units.end,
               {},
               {},
               delta,
               in_.incoming.at(block, t, rows)},
              {rows.size(), units.begin, units.end, states(t, rows), delta}};
    // Of the block after it, if there is one: t is its last.
    deltas_.multiply_recurrent(step.product, deltas_.at(block.number + 1, b), in_.weights);
    fetch_next(step, block, t, rows);
    return step;
  }

  Product<T> enter(const Block& block, Index t, Range rows, Range units) {
    const Index row = block.row_of(t) + rows.begin - block.batch.begin;
    return in_.entering(block, t, rows, units, deltas_.strips(deltas_.at(block.number, row)));
  }

  void run(const Step& step) const { in_.call.cell().backward(step.pointwise); }

  void advance(Step& step, const Block& block, Index t, Range rows) const {
    T*& delta = step.pointwise.values.data;
    deltas_.move(step.product, delta);
    delta -= block.sequence.active(t) * in_.call.kernels.lanes;
    step.pointwise.rows = rows.size();
    step.product.out.data = delta;
    step.product.added = step.pointwise.next_ds;
    step.pointwise.y = step.pointwise.next_y;
    fetch_next(step, block, t, rows);
  }

  // A gated cell's gradients have a part that goes straight from step to step; here is none.
  void resume(Index, Index, const T*) {}
  void leave(Index, Index, T*) const {}
  void add_carried(const Block&, Index, Range, Range, const Trace<T>&) const {}
  void add_carried_to_initial(const Block&, Range, const Gradients<T>&) const {}

 private:
  Strips<const T> states(Index t, Range rows) const {
    return in_.call.rows(states_.after(t, rows.begin), in_.call.problem.hidden);
  }

  // What the step before t will read, if there is one.
  void fetch_next(Step& step, const Block& block, Index t, Range rows) const {
    if (t == 0) return;
    step.pointwise.next_y = states(t - 1, rows);
    step.pointwise.next_ds = in_.incoming.at(block, t - 1, rows);
  }

  BackwardReads<T> in_;
  Deltas<T>& deltas_;
  States<T> states_;
};

template <class T>
class GatedBackward {
 public:
  struct Step {
    Product<T> product;
    GatesBackward<T> gates;
  };

  // A block has at most `block_rows` rows.
  GatedBackward(const BackwardReads<T>& reads, Deltas<T>& deltas, Index block_rows)
      : in_(reads),
        problem_(reads.call.problem),
        cell_(reads.call.cell()),
        lanes_(reads.call.kernels.lanes),
        deltas_(deltas),
        carried_(carried_states(reads.call.problem, reads.record)),
        padded_(reads.call.padded(reads.call.problem.hidden)),
        ds_(reads.call.plan.rows_at_once * padded_),
        carry_(reads.call.plan.rows_at_once * padded_) {
    const Problem<T>& p = reads.call.problem;
    if (reads.sums) saved_ = Buffer<T>(block_rows * p.cell.saved * p.hidden);
  }

  void bind(const Record<const T>& record) {
    in_.record = record;
    carried_ = carried_states(problem_, record);
  }

  // Before the steps of a block; false if the call was interrupted.
  bool begin(const Block& block, Range rows, Range units) {
    return !in_.sums || compute_gates(block, rows, units);
  }

  Step at(const Block& block, Index t, Range rows, Range units) {
    const Problem<T>& p = problem_;
    const Index b = rows.begin - block.batch.begin;
    T* const ds = ds_.get() + b * padded_;
    Step step{{in_.going_on(t, rows),
               p.hidden,
               units.begin,
               units.end,
               {},
               {},
               in_.call.rows(ds, padded_),
               in_.incoming.at(block, t, rows)},
              gates_at(block, t, rows, units)};
    // Of the block after it, if there is one: t is its last.
    deltas_.multiply_recurrent(step.product, deltas_.at(block.number + 1, b), in_.weights);
    fetch_next(step, t);
    return step;
  }

  Product<T> enter(const Block& block, Index t, Range rows, Range units) {
    start_carry(block, rows, units);
    T* const ds = ds_.get() + (rows.begin - block.batch.begin) * padded_;
    return in_.entering(block, t, rows, units, in_.call.rows(ds, padded_));
  }

  void run(const Step& step) const { cell_.gates_backward(step.gates); }

  void advance(Step& step, const Block& block, Index t, Range rows) const {
    const Index active = block.sequence.active(t);
    const Index state = problem_.sequence.active(t) * problem_.hidden;
    GatesBackward<T>& gates = step.gates;
    deltas_.move(step.product, gates.delta);
    step.product.added = in_.incoming.at(block, t, rows);
    gates.rows = rows.size();
    gates.delta -= active * lanes_;
    gates.saved -= (in_.sums ? active * problem_.hidden : state) * problem_.cell.saved;
    if (gates.c) gates.c -= state;
    if (gates.dc) gates.dc -= state;
    gates.previous = carried_.before(t, rows.begin);
    fetch_next(step, t);
  }

  // What was carried past the last step so far, of the sweep's first rows: of (B, H) those from row
  // b on; from another call or for it.
  void resume(Index rows, Index b, const T* in) {
    std::fill_n(ds_.get(), rows * padded_, T(0));
    std::fill_n(carry_.get(), rows * padded_, T(0));
    for (Index row = 0; row < rows; ++row) {
      std::copy_n(in + (b + row) * problem_.hidden, problem_.hidden, carry_.get() + row * padded_);
    }
  }
  void leave(Index rows, Index b, T* out) const {
    for (Index row = 0; row < rows; ++row) {
      std::copy_n(carry_.get() + row * padded_, problem_.hidden, out + (b + row) * problem_.hidden);
    }
  }

  // What is carried past step t is the gradient of the last part of the state, beside what that
  // part gets from outside. `trace` has dL/dS_t of the product already.
  void add_carried(const Block& block, Index t, Range rows, Range units,
                   const Trace<T>& trace) const {
    const Problem<T>& p = problem_;
    for (Index b = rows.begin; b < rows.end; ++b) {
      const Index row = (p.sequence.row(t) + b) * p.hidden;
      const T* const carry = carry_.get() + (b - block.batch.begin) * padded_;
      const bool two = p.cell.states > 1;
      T* const last = (two ? trace.dmemories : trace.dstates) + row;
      const T* const before = two ? in_.incoming.dc(t, b) : last;
      for (Index u = units.begin; u < units.end; ++u) {
        last[u] = (before ? before[u] : T(0)) + carry[u];
      }
    }
  }

  // What it carried past step 0: part of dS_{-1}, which has the product already, or dc_{-1}.
  void add_carried_to_initial(const Block& block, Range units, const Gradients<T>& g) const {
    const Problem<T>& p = problem_;
    const bool two = p.cell.states > 1, adds = g.write == Write::add || !two;
    if (!(two ? g.c : g.state)) return;
    const Range rows = p.sequence.active(0, block.batch);
    for (Index b = rows.begin; b < rows.end; ++b) {
      T* const carried = (two ? g.c : g.state) + b * p.hidden;
      const T* const carry = carry_.get() + (b - block.batch.begin) * padded_;
      for (Index u = units.begin; u < units.end; ++u) {
        carried[u] = (adds ? carried[u] : T(0)) + carry[u];
      }
    }
  }

 private:
  // What comes after the last step of some rows: dL/dc of their final state, or nothing.
  void start_carry(const Block& block, Range rows, Range units) {
    const Index hidden = problem_.hidden;
    for (Index b = rows.begin; b < rows.end; ++b) {
      T* const carry = carry_.get() + (b - block.batch.begin) * padded_;
      const T* const last = in_.incoming.last_dc(b);
      for (Index u = units.begin; u < units.end; ++u) carry[u] = last ? last[u] : T(0);
      if (units.end < hidden) continue;
      // Kernels read whole vectors, whatever they make of what is behind the last unit.
      T* const ds = ds_.get() + (b - block.batch.begin) * padded_;
      for (Index u = units.end; u < padded_; ++u) carry[u] = ds[u] = T(0);
    }
  }

  // What the forward pass did not save, of the block's steps: its sums again, from the states.
  bool compute_gates(const Block& block, Range rows, Range units) {
    const Problem<T>& p = problem_;
    const GateSteps<T> steps(in_.call, *in_.sums, in_.record);
    const Index row_flops = 2 * units.size() * p.cell.gates * (p.inputs + p.hidden);
    for (Index t = block.steps.begin; t < block.steps.end;) {
      Range active = p.sequence.active(t, rows);
      if (active.size() == 0) break;
      const Index together = steps_together(block, t, rows);
      active.end += (together - 1) * rows.size();
      auto step = steps.at(t, in_.x.rows(block, t, rows.begin, lanes_), nullptr, active, units);
      step.gates.saved = saved_at(block, t, rows.begin);
      steps.run(step);
      if (!in_.call.go_on(active.size() * row_flops)) return false;
      t += together;
    }
    return true;
  }

  // How many steps from t on are one product: of a whole dense batch the rows lie side by side, but
  // for the state before step 0.
  Index steps_together(const Block& block, Index t, Range rows) const {
    const Sequence& sequence = problem_.sequence;
    if (t == 0 || !sequence.dense() || rows.size() != sequence.batch) return 1;
    return std::clamp<Index>(in_.sums->rows() / rows.size(), 1, block.steps.end - t);
  }

  // Gates that were computed again, of a step of the block, from row b of the batch on.
  T* saved_at(const Block& block, Index t, Index b) {
    const Problem<T>& p = problem_;
    const Index row = block.row_of(t) + b - block.batch.begin;
    return saved_.get() + row * p.cell.saved * p.hidden;
  }

  GatesBackward<T> gates_at(const Block& block, Index t, Range rows, Range units) {
    const Problem<T>& p = problem_;
    const Index row = p.sequence.row(t) + rows.begin, b = rows.begin - block.batch.begin;
    const T* const recorded = in_.record.saved + row * p.cell.saved * p.hidden;
    return {rows.size(),
            units.begin,
            units.end,
            p.hidden,
            in_.sums ? saved_at(block, t, rows.begin) : recorded,
            carried_.before(t, rows.begin),
            p.cell.states > 1 ? in_.record.c + row * p.hidden : nullptr,
            in_.incoming.dc(t, rows.begin),
            ds_.get() + b * padded_,
            carry_.get() + b * padded_,
            padded_,
            deltas_.at(block.number, block.row_of(t) + b),
            deltas_.plane_stride(),
            deltas_.strip_stride()};
  }

  // What the step before t will read, if there is one.
  void fetch_next(Step& step, Index t) const {
    const Problem<T>& p = problem_;
    if (t == 0) return;
    const Index values = p.sequence.active(t - 1) * p.cell.saved * p.hidden;
    step.gates.next_saved = in_.sums ? nullptr : step.gates.saved - values;
  }

  BackwardReads<T> in_;
  const Problem<T>& problem_;
  const Cell<T>& cell_;
  const Index lanes_;
  Deltas<T>& deltas_;
  States<T> carried_;
  const Index padded_;
  Buffer<T> ds_;     // (rows at once, padded H) dL/dS_t
  Buffer<T> carry_;  // (rows at once, padded H) what goes straight from step to step
  Buffer<T> saved_;  // (block rows, saved, H) what was not saved
};

}  // namespace bptt
