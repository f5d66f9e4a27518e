// A network with random weights and data, in guarded memory, and the arrays that calls of the
// engine fill.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "arrays.h"
#include "engine/engine.h"
#include "isa.h"
#include "random.h"

namespace bptt::test {

struct Sizes {
  Index steps, batch, inputs, hidden, outputs;
};

inline std::ostream& operator<<(std::ostream& out, const Sizes& s) {
  return out << "T " << s.steps << ", B " << s.batch << ", I " << s.inputs << ", H " << s.hidden
             << ", O " << s.outputs;
}

enum class Biases { none, both };

// Which loss, of which steps: one, or all (step = -1), these with weights or without.
struct LossChoice {
  LossId id;
  Index step;
  bool weighted;
};

template <class T>
class Network {
 public:
  Network(CellId cell_id, const Sizes& s, Biases biases, std::uint64_t seed, Index gap = 0)
      : sizes(s),
        cell(shape_of(cell_id)),
        x(s.steps * s.batch * s.inputs, gap),
        state(s.batch * s.hidden, gap),
        w_ih(cell.gates * s.hidden * s.inputs, gap),
        w_hh(cell.gates * s.hidden * s.hidden, gap),
        b_ih(cell.gates * s.hidden, gap),
        b_hh(cell.gates * s.hidden, gap),
        w_ho(s.outputs * s.hidden, gap),
        b_o(s.outputs, gap),
        dy(s.steps * s.batch * s.hidden, gap),
        dstate(s.batch * s.hidden, gap),
        target(s.steps * s.batch * s.outputs, gap),
        ids(s.steps * s.batch, gap),
        weights(s.steps * s.batch, gap),
        c(cell.states > 1 ? s.batch * s.hidden : 0, gap),
        dc(cell.states > 1 ? s.steps * s.batch * s.hidden : 0, gap),
        dstate_c(cell.states > 1 ? s.batch * s.hidden : 0, gap),
        cell_(cell_id),
        biases_(biases) {
    Random random(seed);
    // Rows of w_hh have a norm of about 0.9: neither vanishing at once nor exploding.
    const T recurrent = T(0.9 * std::sqrt(3.0 / static_cast<double>(std::max<Index>(1, s.hidden))));
    for (GuardedArray<T>* array :
         {&x, &state, &w_ih, &b_ih, &b_hh, &w_ho, &b_o, &dy, &dstate, &target, &weights}) {
      for (T& value : *array) value = T(0.5) * random.uniform<T>();
    }
    for (T& value : w_hh) value = recurrent * random.uniform<T>();
    for (std::int64_t& id : ids) id = random.below(std::max<Index>(1, s.outputs));
    for (GuardedArray<T>* array : {&c, &dc, &dstate_c}) {
      for (T& value : *array) value = T(0.5) * random.uniform<T>();
    }
  }

  Problem<T> problem() const {
    const bool biased = biases_ == Biases::both;
    return {{{sizes.steps, sizes.batch}, sizes.inputs, sizes.hidden, 0, cell},
            cell_,
            x.get(),
            state.get(),
            cell.states > 1 ? c.get() : nullptr,
            w_ih.get(),
            w_hh.get(),
            biased ? b_ih.get() : nullptr,
            biased ? b_hh.get() : nullptr};
  }
  Objective<T> objective(const LossChoice& loss) const {
    const bool squared = loss.id == LossId::squared_error;
    return {loss.id,
            sizes.outputs,
            w_ho.get(),
            biases_ == Biases::both ? b_o.get() : nullptr,
            squared ? target.get() : nullptr,
            squared ? nullptr : ids.get(),
            loss.weighted ? weights.get() : nullptr,
            loss.step,
            0.25};
  }
  bool biased() const { return biases_ == Biases::both; }
  StateGradients<T> incoming() const {
    const bool two = cell.states > 1;
    return {dy.get(), two ? dc.get() : nullptr, dstate.get(), two ? dstate_c.get() : nullptr,
            nullptr};
  }

  Sizes sizes;
  CellShape cell;
  GuardedArray<T> x, state, w_ih, w_hh, b_ih, b_hh, w_ho, b_o, dy, dstate, target;
  GuardedArray<std::int64_t> ids;
  GuardedArray<T> weights;
  GuardedArray<T> c, dc, dstate_c;

 private:
  CellId cell_;
  Biases biases_;
};

// What the engine writes, by name.
template <class T>
struct Results {
  explicit Results(const Network<T>& n, Index gap = 0) : Results(n.sizes, n.cell, gap) {}
  Results(const Sizes& s, const CellShape& cell, Index gap)
      : two(cell.states > 1),
        gated(cell.gated()),
        y(s.steps * s.batch * s.hidden, gap),
        last(s.batch * s.hidden, gap),
        dx(s.steps * s.batch * s.inputs, gap),
        dstate(s.batch * s.hidden, gap),
        dw_ih(cell.gates * s.hidden * s.inputs, gap),
        dw_hh(cell.gates * s.hidden * s.hidden, gap),
        db_ih(cell.gates * s.hidden, gap),
        db_hh(cell.gates * s.hidden, gap),
        dw_ho(s.outputs * s.hidden, gap),
        db_o(s.outputs, gap),
        c(two ? y.size() : 0, gap),
        last_c(two ? last.size() : 0, gap),
        dstate_c(two ? dstate.size() : 0, gap),
        saved(cell.saved * y.size(), gap) {}

  Record<T> record() { return {y.get(), two ? c.get() : nullptr, gated ? saved.get() : nullptr}; }
  Record<const T> record() const {
    return {y.get(), two ? c.get() : nullptr, gated ? saved.get() : nullptr};
  }
  State<T> last_state() { return {last.get(), two ? last_c.get() : nullptr}; }

  Gradients<T> gradients(bool biased, bool with_readout, Write write = Write::overwrite) {
    return {dx.get(),
            dstate.get(),
            two ? dstate_c.get() : nullptr,
            dw_ih.get(),
            dw_hh.get(),
            biased ? db_ih.get() : nullptr,
            biased ? db_hh.get() : nullptr,
            with_readout ? dw_ho.get() : nullptr,
            biased && with_readout ? db_o.get() : nullptr,
            write};
  }

  void fill(T value) {
    for (auto* array : {&y, &last, &dx, &dstate, &dw_ih, &dw_hh, &db_ih, &db_hh, &dw_ho, &db_o, &c,
                        &last_c, &dstate_c, &saved}) {
      std::fill(array->begin(), array->end(), value);
    }
  }

  // f(name, array of this, array of the other).
  template <class Other, class F>
  void for_each_with(const Other& other, F&& f) const {
    f("y", y, other.y);
    f("last", last, other.last);
    f("dx", dx, other.dx);
    f("dstate", dstate, other.dstate);
    f("dw_ih", dw_ih, other.dw_ih);
    f("dw_hh", dw_hh, other.dw_hh);
    f("db_ih", db_ih, other.db_ih);
    f("db_hh", db_hh, other.db_hh);
    f("dw_ho", dw_ho, other.dw_ho);
    f("db_o", db_o, other.db_o);
    if (two) f("c", c, other.c);
    if (two) f("last_c", last_c, other.last_c);
    if (two) f("dstate_c", dstate_c, other.dstate_c);
  }

  bool two, gated;
  GuardedArray<T> y, last, dx, dstate, dw_ih, dw_hh, db_ih, db_hh, dw_ho, db_o;
  GuardedArray<T> c, last_c, dstate_c, saved;
  double loss = 0;
};

inline bool never_asked() { return false; }

// Forward, then backward from all gradients that come in.
template <class T>
void run_both(const Network<T>& network, int threads, Write write, Results<T>& r) {
  Interrupt interrupt(never_asked);
  const Problem<T> problem = network.problem();
  forward(problem, r.record(), r.last_state(), {threads, true}, interrupt);
  backward(problem, std::as_const(r).record(), network.incoming(),
           r.gradients(network.biased(), false, write), {}, {threads, true}, interrupt);
}

template <class T>
Results<T> run_both(const Network<T>& network, int threads, Index gap = 0) {
  Results<T> r(network, gap);
  run_both(network, threads, Write::overwrite, r);
  return r;
}

template <class T>
Results<T> run_value_and_grad(const Network<T>& network, const LossChoice& loss, int threads,
                              Index gap = 0) {
  Results<T> r(network, gap);
  Interrupt interrupt(never_asked);
  r.loss = value_and_grad(network.problem(), network.objective(loss),
                          r.gradients(network.biased(), true), {}, {}, {threads, true}, interrupt);
  return r;
}

// The same two, added to gradients that are `before` everywhere.
template <class T>
Results<T> add_both(const Network<T>& network, int threads, T before) {
  Results<T> r(network);
  r.fill(before);
  run_both(network, threads, Write::add, r);
  return r;
}

template <class T>
Results<T> add_value_and_grad(const Network<T>& network, const LossChoice& loss, int threads,
                              T before) {
  Results<T> r(network);
  r.fill(before);
  Interrupt interrupt(never_asked);
  r.loss = value_and_grad(network.problem(), network.objective(loss),
                          r.gradients(network.biased(), true, Write::add), {}, {}, {threads, true},
                          interrupt);
  return r;
}

}  // namespace bptt::test
