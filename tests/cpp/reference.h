// The equations of a network in plain loops, in double for float and in long double for double:
//
//     S_t = f(W_x x_t + b_ih + W_s S_{t-1} + b_hh)
//     dS_t = dy_t + W_sᵀ da_{t+1}      da_t = f'(a_t) dS_t
//     dx_t = W_xᵀ da_t    dW_x = sum da_t x_tᵀ    dW_s = sum da_t S_{t-1}ᵀ    db = sum da_t
//
// and those of gated cells, which csrc/cells/ states. Both sums that enter a step, W_x x_t + b_ih
// and W_s S_{t-1} + b_hh, have gradients of their own: `da_i` and `da_h`.
//
// The gradients of Elman cells are those at the states S_t that the engine computed, as its
// backward pass has it: else a rounding that moves an a_t across the kink of a relu would look like
// an error.
#pragma once

#include <cfloat>
#include <cmath>
#include <type_traits>
#include <vector>

#include "network.h"

namespace bptt::test {

// Where long double is no type of the CPU (AArch64), plain loops in it take minutes: there double
// is held against double, whose own rounding the tolerance has room for.
using Widest = std::conditional_t<LDBL_MANT_DIG == 64, long double, double>;
template <class T>
using Wide = std::conditional_t<std::is_same_v<T, float>, double, Widest>;

// Arrays with the names of Results, in wide numbers; those that a call does not fill are empty.
template <class T>
struct Expected {
  std::vector<Wide<T>> y, last, dx, dstate, dw_ih, dw_hh, db_ih, db_hh, dw_ho, db_o;
  std::vector<Wide<T>> c, last_c, dstate_c;
  Wide<T> loss = 0;
};

template <class T>
class Reference {
 public:
  using W = Wide<T>;

  Reference(const Network<T>& network, const GuardedArray<T>& states)
      : n_(network), s_(network.sizes), p_(network.problem()), states_(states) {}

  // Forward, and backward from dy and dstate of the network.
  Expected<T> both() {
    forward();
    std::vector<W> dy(n_.dy.begin(), n_.dy.end()), dc(n_.dc.begin(), n_.dc.end());
    out_.y = y_, out_.c = c_;
    out_.last = last_state(y_, n_.state), out_.last_c = last_state(c_, n_.c);
    backward(dy, dc, {n_.dstate.begin(), n_.dstate.end()},
             {n_.dstate_c.begin(), n_.dstate_c.end()});
    return out_;
  }

  Expected<T> value_and_grad(const LossChoice& loss) {
    if (n_.cell.gated()) forward();  // for its gates
    out_ = {};
    std::vector<W> dy = zeros(s_.steps * s_.batch * s_.hidden);
    out_.dw_ho = zeros(s_.outputs * s_.hidden);
    if (n_.biased()) out_.db_o = zeros(s_.outputs);
    for (Index t = 0; t < s_.steps; ++t) {
      if (loss.step >= 0 && t != loss.step) continue;
      for (Index b = 0; b < s_.batch; ++b) add_loss(loss, t, b, dy);
    }
    const Index size = s_.batch * s_.hidden;
    const bool two = n_.cell.states > 1;
    backward(dy, zeros(two ? s_.steps * size : 0), zeros(size), zeros(two ? size : 0));
    return out_;
  }

 private:
  static W& at(std::vector<W>& array, Index i) { return array[static_cast<std::size_t>(i)]; }

  static std::vector<W> zeros(Index n) { return std::vector<W>(static_cast<std::size_t>(n)); }

  W state(Index t, Index b, Index h) const {  // S_t of the engine; t = -1 is the initial one
    const Index i = b * s_.hidden + h;
    return W(t < 0 ? n_.state[i] : states_[t * s_.batch * s_.hidden + i]);
  }

  W activate(W a) const {
    return p_.id == Cells::tanh ? std::tanh(a) : p_.id == Cells::relu ? std::max(W(0), a) : a;
  }

  W chain(W ds, W s) const {
    return p_.id == Cells::tanh   ? ds * (1 - s * s)
           : p_.id == Cells::relu ? (s <= 0 ? W(0) : ds)
                                  : ds;
  }

  // Index of unit h of row b at step t in arrays of all steps, and in arrays of one.
  Index at_step(Index t, Index b, Index h) const { return (t * s_.batch + b) * s_.hidden + h; }

  std::vector<W> last_state(const std::vector<W>& history, const GuardedArray<T>& initial) const {
    if (s_.steps == 0) return {initial.begin(), initial.end()};
    return {history.end() - static_cast<std::ptrdiff_t>(initial.size()), history.end()};
  }

  // S_{t-1} and c_{t-1}, in wide numbers.
  W previous(const std::vector<W>& history, const GuardedArray<T>& initial, Index t, Index b,
             Index h) {
    return t == 0 ? W(initial[b * s_.hidden + h])
                  : history[static_cast<std::size_t>(at_step(t - 1, b, h))];
  }

  static W sigma(W a) { return 1 / (1 + std::exp(-a)); }

  void forward() {
    if (!y_.empty()) return;  // it was run before
    for (Index t = 0; t < s_.steps; ++t) {
      for (Index b = 0; b < s_.batch; ++b) {
        for (Index h = 0; h < s_.hidden; ++h) step(t, b, h);
      }
    }
  }

  // Appends a unit's state, and of a gated cell its four saved values.
  void step(Index t, Index b, Index h) {
    const auto i = [&](Index gate) { return input_sum(t, b, gate * s_.hidden + h); };
    const auto r = [&](Index gate) { return recurrent_sum(t, b, gate * s_.hidden + h); };
    if (p_.id == Cells::lstm) {
      const W gates[] = {sigma(i(0) + r(0)), sigma(i(1) + r(1)), std::tanh(i(2) + r(2)),
                         sigma(i(3) + r(3))};
      gates_.insert(gates_.end(), std::begin(gates), std::end(gates));
      c_.push_back(gates[1] * previous(c_, n_.c, t, b, h) + gates[0] * gates[2]);
      y_.push_back(gates[3] * std::tanh(c_.back()));
    } else if (p_.id == Cells::gru) {
      const W reset = sigma(i(0) + r(0)), z = sigma(i(1) + r(1)), h_n = r(2);
      const W n = std::tanh(i(2) + reset * h_n);
      const W gates[] = {reset, z, n, h_n};
      gates_.insert(gates_.end(), std::begin(gates), std::end(gates));
      y_.push_back((1 - z) * n + z * previous(y_, n_.state, t, b, h));
    } else {
      y_.push_back(activate(i(0) + r(0)));
    }
  }

  W input_sum(Index t, Index b, Index row) const {
    W a = n_.biased() ? W(n_.b_ih[row]) : W(0);
    for (Index i = 0; i < s_.inputs; ++i) {
      a += W(n_.w_ih[row * s_.inputs + i]) * W(n_.x[(t * s_.batch + b) * s_.inputs + i]);
    }
    return a;
  }

  W recurrent_sum(Index t, Index b, Index row) {
    W a = n_.biased() ? W(n_.b_hh[row]) : W(0);
    for (Index k = 0; k < s_.hidden; ++k) {
      a += W(n_.w_hh[row * s_.hidden + k]) * previous(y_, n_.state, t, b, k);
    }
    return a;
  }

  // Adds the loss of row b at step t, and its gradients in S_t, W_o and b_o.
  void add_loss(const LossChoice& loss, Index t, Index b, std::vector<W>& dy) {
    const Index row = loss.step >= 0 ? b : t * s_.batch + b;
    const W scale = W(0.25) * (loss.weighted ? W(n_.weights[t * s_.batch + b]) : W(1));
    std::vector<W> d_o = outputs(t, b);
    out_.loss += scale * (loss.id == LossId::squared_error ? squared_error(row, d_o)
                                                           : cross_entropy(row, d_o));
    for (Index o = 0; o < s_.outputs; ++o) {
      at(d_o, o) *= scale;
      if (n_.biased()) at(out_.db_o, o) += at(d_o, o);
      for (Index h = 0; h < s_.hidden; ++h) {
        at(out_.dw_ho, o * s_.hidden + h) += at(d_o, o) * state(t, b, h);
        at(dy, (t * s_.batch + b) * s_.hidden + h) += at(d_o, o) * W(n_.w_ho[o * s_.hidden + h]);
      }
    }
  }

  std::vector<W> outputs(Index t, Index b) {
    std::vector<W> outputs;
    for (Index o = 0; o < s_.outputs; ++o) {
      W sum = n_.biased() ? W(n_.b_o[o]) : W(0);
      for (Index h = 0; h < s_.hidden; ++h) sum += W(n_.w_ho[o * s_.hidden + h]) * state(t, b, h);
      outputs.push_back(sum);
    }
    return outputs;
  }

  W squared_error(Index row, std::vector<W>& o) {
    W loss = 0;
    for (Index j = 0; j < s_.outputs; ++j) {
      at(o, j) -= W(n_.target[row * s_.outputs + j]);
      loss += at(o, j) * at(o, j) / 2;
    }
    return loss;
  }

  W cross_entropy(Index row, std::vector<W>& o) {
    W total = 0;
    for (W value : o) total += std::exp(value);
    const W loss = std::log(total) - at(o, n_.ids[row]);
    for (W& value : o) value = std::exp(value) / total;
    at(o, n_.ids[row]) -= 1;
    return loss;
  }

  // From gradients of all states, and of the last one.
  void backward(const std::vector<W>& dy, const std::vector<W>& dc, std::vector<W> ds,
                std::vector<W> ds_c) {
    const Index rows = n_.cell.gates * s_.hidden;
    out_.dx = zeros(s_.steps * s_.batch * s_.inputs);
    out_.dw_ih = zeros(rows * s_.inputs);
    out_.dw_hh = zeros(rows * s_.hidden);
    if (n_.biased()) out_.db_ih = out_.db_hh = zeros(rows);
    for (Index t = s_.steps - 1; t >= 0; --t) {
      for (Index b = 0; b < s_.batch; ++b) {
        std::vector<W> da_i = zeros(rows), da_h = zeros(rows);
        for (Index h = 0; h < s_.hidden; ++h) {
          const Index i = b * s_.hidden + h;
          at(ds, i) += dy[static_cast<std::size_t>(at_step(t, b, h))];
          if (!dc.empty()) at(ds_c, i) += dc[static_cast<std::size_t>(at_step(t, b, h))];
          W* const d_c = dc.empty() ? nullptr : &at(ds_c, i);
          step_back(t, b, h, at(ds, i), d_c, da_i, da_h);
        }
        add_weight_gradients(t, b, da_i, da_h);
        for (Index h = 0; h < s_.hidden; ++h) {
          for (Index k = 0; k < rows; ++k) {
            at(ds, b * s_.hidden + h) += at(da_h, k) * W(n_.w_hh[k * s_.hidden + h]);
          }
        }
      }
    }
    out_.dstate = ds;
    out_.dstate_c = ds_c;
  }

  // Turns dS_t and dc_t of a unit into what goes straight to the step before, and into da.
  void step_back(Index t, Index b, Index h, W& ds, W* dc, std::vector<W>& da_i,
                 std::vector<W>& da_h) {
    const auto da = [&](Index gate, W value) {
      at(da_i, gate * s_.hidden + h) = at(da_h, gate * s_.hidden + h) = value;
    };
    if (!n_.cell.gated()) {
      da(0, chain(ds, state(t, b, h)));
      ds = 0;
      return;
    }
    const W* v = gates_.data() + 4 * at_step(t, b, h);
    const auto slope = [](W s) { return s * (1 - s); };
    if (p_.id == Cells::lstm) {
      const W tanh_c = std::tanh(at(c_, at_step(t, b, h)));
      *dc += ds * v[3] * (1 - tanh_c * tanh_c);
      da(0, *dc * v[2] * slope(v[0]));
      da(1, *dc * previous(c_, n_.c, t, b, h) * slope(v[1]));
      da(2, *dc * v[0] * (1 - v[2] * v[2]));
      da(3, ds * tanh_c * slope(v[3]));
      *dc *= v[1];
      ds = 0;
    } else {
      const W da_n = ds * (1 - v[1]) * (1 - v[2] * v[2]);
      da(0, da_n * v[3] * slope(v[0]));
      da(1, ds * (previous(y_, n_.state, t, b, h) - v[2]) * slope(v[1]));
      da(2, da_n);
      at(da_h, 2 * s_.hidden + h) = v[0] * da_n;
      ds *= v[1];
    }
  }

  void add_weight_gradients(Index t, Index b, std::vector<W>& da_i, std::vector<W>& da_h) {
    for (Index row = 0; row < n_.cell.gates * s_.hidden; ++row) {
      for (Index i = 0; i < s_.inputs; ++i) {
        const Index at_x = (t * s_.batch + b) * s_.inputs + i;
        at(out_.dw_ih, row * s_.inputs + i) += at(da_i, row) * W(n_.x[at_x]);
        at(out_.dx, at_x) += at(da_i, row) * W(n_.w_ih[row * s_.inputs + i]);
      }
      for (Index k = 0; k < s_.hidden; ++k) {
        at(out_.dw_hh, row * s_.hidden + k) += at(da_h, row) * state(t - 1, b, k);
      }
      if (n_.biased()) {
        at(out_.db_ih, row) += at(da_i, row);
        at(out_.db_hh, row) += at(da_h, row);
      }
    }
  }

  const Network<T>& n_;
  const Sizes s_;
  const Problem<T> p_;
  const GuardedArray<T>& states_;
  std::vector<W> y_, c_, gates_;  // of all steps; gates_ has four values a unit
  Expected<T> out_;
};

}  // namespace bptt::test
