// A step of the recurrence, forward, for some rows and units: first the sums that enter the cell,
// then what it makes of them. One policy for Elman cells, one for gated cells.
//
// A step is prepared once a block and moved from step to step: `at` prepares that of step t, and
// `advance` makes the one before t that of t, whose rows may be fewer. `x` is x_t of these rows;
// `projected` is b + W_x x of the block's rows, or null.
#pragma once

#include "engine/preactivations.h"

namespace bptt {

// Where a record shows S_t of step t, of some rows of the batch. The next step's places are told if
// it has any for as many rows.
template <class T>
Shown<T> shown_at(const Problem<T>& p, const Record<T>& record, Index t, Range batch) {
  if (!record.shown) return {};
  const Index* const places = p.places.rows + batch.begin;
  const Index next = t + 1 < p.sequence.steps ? p.sequence.row(t + 1) : p.sequence.rows();
  const bool there = next + batch.end <= p.sequence.rows();
  return {record.shown, p.hidden, places + p.sequence.row(t), there ? places + next : nullptr};
}

template <class T>
class ElmanForward {
 public:
  struct Step {
    StepProducts<T> sums;
    Pointwise<T> pointwise;  // in place of the sums
  };

  ElmanForward(const Call<T>& call, const Preactivations<T>& sums, const Record<T>& record)
      : call_(call), sums_(sums), states_(call.problem.states(record.y)), record_(record) {}

  Step at(Index t, const Strips<const T>& x, const T* projected, Range rows, Range units) const {
    const Problem<T>& p = call_.problem;
    T* const y = record_.y + (p.sequence.row(t) + rows.begin) * p.hidden;
    Step step{sums_.at(t, x, states_.before(t, rows.begin), projected, rows, units, y), {}};
    const Strips<T> out = call_.rows(y, p.hidden);
    step.pointwise = {rows.size(), units.begin, units.end, {}, out};
    step.pointwise.next_values = out;
    step.pointwise.shown = shown_at(p, record_, t, rows);
    if (t + 1 < p.sequence.steps) step.pointwise.next_values.data += values_of(t);
    return step;
  }

  void run(const Step& step) const {
    step.sums.run(call_.kernels);
    call_.cell().forward(step.pointwise);
  }

  void advance(Step& step, Index t, const T* x, Range rows) const {
    const Sequence& sequence = call_.problem.sequence;
    T*& y = step.pointwise.values.data;
    step.sums.advance(x, y, sequence.active(t - 1), rows.size());
    step.pointwise.rows = rows.size();
    y += values_of(t - 1);
    step.sums.products[0].out.data = y;
    if (record_.shown) step.pointwise.shown = shown_at(call_.problem, record_, t, rows);
    if (t + 1 < sequence.steps) step.pointwise.next_values.data += values_of(t);
  }

 private:
  // Of the states of step t.
  Index values_of(Index t) const { return call_.problem.sequence.active(t) * call_.problem.hidden; }

  const Call<T>& call_;
  const Preactivations<T>& sums_;
  const States<T> states_;
  const Record<T> record_;
};

// The gates of a gated cell at a step whose S_{t-1} is known.
template <class T>
class GateSteps {
 public:
  struct Step {
    StepProducts<T> sums;
    GatesForward<T> gates;
  };

  GateSteps(const Call<T>& call, const Preactivations<T>& sums, const Record<const T>& record)
      : call_(call),
        sums_(sums),
        states_(call.problem.states(record.y)),
        carried_(carried_states(call.problem, record)) {}

  // But for what it writes.
  Step at(Index t, const Strips<const T>& x, const T* projected, Range rows, Range units) const {
    const T* const s = states_.before(t, rows.begin);
    Step step{sums_.at(t, x, s, projected, rows, units, nullptr), {}};
    GatesForward<T>& gates = step.gates;
    gates.rows = rows.size();
    gates.begin = units.begin;
    gates.end = units.end;
    gates.hidden = call_.problem.hidden;
    gates.sums = sums_.sums(projected, rows.begin);
    gates.recurrent = sums_.recurrent(rows.begin);
    gates.sums_stride = sums_.padded();
    gates.previous = carried_.before(t, rows.begin);
    return step;
  }

  void run(const Step& step) const {
    step.sums.run(call_.kernels);
    call_.cell().gates_forward(step.gates);
  }

 protected:
  const Call<T>& call_;
  const Preactivations<T>& sums_;

 private:
  const States<T> states_, carried_;
};

template <class T>
class GatedForward : public GateSteps<T> {
 public:
  using typename GateSteps<T>::Step;

  GatedForward(const Call<T>& call, const Preactivations<T>& sums, const Record<T>& record)
      : GateSteps<T>(call, sums, read_only(record)), record_(record) {}

  Step at(Index t, const Strips<const T>& x, const T* projected, Range rows, Range units) const {
    const Problem<T>& p = call_.problem;
    const Index row = p.sequence.row(t) + rows.begin;
    Step step = GateSteps<T>::at(t, x, projected, rows, units);
    step.gates.y = record_.y + row * p.hidden;
    step.gates.c = p.cell.states > 1 ? record_.c + row * p.hidden : nullptr;
    step.gates.saved = record_.saved ? record_.saved + row * p.cell.saved * p.hidden : nullptr;
    step.gates.next_rows = rows_to_next(t);
    step.gates.shown = shown_at(p, record_, t, rows);
    return step;
  }

  void advance(Step& step, Index t, const T* x, Range rows) const {
    const Problem<T>& p = call_.problem;
    const Index further = p.sequence.active(t - 1);
    GatesForward<T>& gates = step.gates;
    step.sums.advance(x, gates.y, further, rows.size());
    gates.rows = rows.size();
    gates.previous = p.cell.states > 1 ? gates.c : gates.y;
    gates.y += further * p.hidden;
    if (gates.c) gates.c += further * p.hidden;
    if (gates.saved) gates.saved += further * p.hidden * p.cell.saved;
    gates.next_rows = rows_to_next(t);
    if (record_.shown) gates.shown = shown_at(p, record_, t, rows);
    if (p.cell.apart && call_.plan.project_first) gates.sums += further * sums_.padded();
  }

 private:
  using GateSteps<T>::call_;
  using GateSteps<T>::sums_;

  // From a row of step t to that of the step after, if there is one.
  Index rows_to_next(Index t) const {
    const Sequence& sequence = call_.problem.sequence;
    return t + 1 < sequence.steps ? sequence.active(t) : 0;
  }

  const Record<T> record_;
};

}  // namespace bptt
