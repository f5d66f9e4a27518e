// The equations of a network in plain loops, in double for float and in long double for double:
//
//     S_t = f(W_x x_t + b_ih + W_s S_{t-1} + b_hh)
//     dS_t = dy_t + W_sᵀ da_{t+1}      da_t = f'(a_t) dS_t
//     dx_t = W_xᵀ da_t    dW_x = sum da_t x_tᵀ    dW_s = sum da_t S_{t-1}ᵀ    db = sum da_t
//
// The gradients are those at the states S_t that the engine computed, as its backward pass has it:
// else a rounding that moves an a_t across the kink of a relu would look like an error.
#pragma once

#include <cmath>
#include <type_traits>
#include <vector>

#include "network.h"

namespace bptt::test {

template <class T>
using Wide = std::conditional_t<std::is_same_v<T, float>, double, long double>;

// Arrays with the names of Results, in wide numbers; those that a call does not fill are empty.
template <class T>
struct Expected {
  std::vector<Wide<T>> y, last, dx, dstate, dw_ih, dw_hh, db_ih, db_hh, dw_ho, db_o;
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
    std::vector<W> dy(n_.dy.begin(), n_.dy.end());
    if (s_.steps > 0) {
      W* last = dy.data() + (s_.steps - 1) * s_.batch * s_.hidden;
      for (Index i = 0; i < s_.batch * s_.hidden; ++i) last[i] += n_.dstate[i];
      backward(dy);
    } else {
      backward(dy);
      out_.dstate.assign(n_.dstate.begin(), n_.dstate.end());
    }
    return out_;
  }

  Expected<T> value_and_grad(const LossChoice& loss) {
    std::vector<W> dy = zeros(s_.steps * s_.batch * s_.hidden);
    out_.dw_ho = zeros(s_.outputs * s_.hidden);
    if (n_.biased()) out_.db_o = zeros(s_.outputs);
    for (Index t = 0; t < s_.steps; ++t) {
      if (loss.step >= 0 && t != loss.step) continue;
      for (Index b = 0; b < s_.batch; ++b) add_loss(loss, t, b, dy);
    }
    backward(dy);
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
    return p_.cell == CellId::tanh ? std::tanh(a) : p_.cell == CellId::relu ? std::max(W(0), a) : a;
  }

  W chain(W ds, W s) const {
    return p_.cell == CellId::tanh   ? ds * (1 - s * s)
           : p_.cell == CellId::relu ? (s <= 0 ? W(0) : ds)
                                     : ds;
  }

  void forward() {
    std::vector<W> previous(n_.state.begin(), n_.state.end());
    for (Index t = 0; t < s_.steps; ++t) {
      std::vector<W> next;
      for (Index b = 0; b < s_.batch; ++b) {
        for (Index h = 0; h < s_.hidden; ++h) next.push_back(activate(sum(previous, t, b, h)));
      }
      out_.y.insert(out_.y.end(), next.begin(), next.end());
      previous = next;
    }
    out_.last = previous;
  }

  // a_t
  W sum(std::vector<W>& previous, Index t, Index b, Index h) const {
    W a = n_.biased() ? W(n_.b_ih[h]) + W(n_.b_hh[h]) : W(0);
    for (Index i = 0; i < s_.inputs; ++i) {
      a += W(n_.w_ih[h * s_.inputs + i]) * W(n_.x[(t * s_.batch + b) * s_.inputs + i]);
    }
    for (Index k = 0; k < s_.hidden; ++k) {
      a += W(n_.w_hh[h * s_.hidden + k]) * at(previous, b * s_.hidden + k);
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

  void backward(const std::vector<W>& dy) {
    out_.dx = zeros(s_.steps * s_.batch * s_.inputs);
    out_.dw_ih = zeros(s_.hidden * s_.inputs);
    out_.dw_hh = zeros(s_.hidden * s_.hidden);
    if (n_.biased()) out_.db_ih = out_.db_hh = zeros(s_.hidden);
    std::vector<W> da = zeros(s_.batch * s_.hidden);  // of step t + 1
    for (Index t = s_.steps - 1; t >= 0; --t) {
      std::vector<W> ds = recurrent_gradient(da);
      for (Index b = 0; b < s_.batch; ++b) {
        for (Index h = 0; h < s_.hidden; ++h) {
          const Index i = b * s_.hidden + h;
          const W outside = dy[static_cast<std::size_t>(t * s_.batch * s_.hidden + i)];
          at(da, i) = chain(at(ds, i) + outside, state(t, b, h));
          add_weight_gradients(t, b, h, at(da, i));
        }
      }
    }
    out_.dstate = recurrent_gradient(da);
  }

  // W_sᵀ da
  std::vector<W> recurrent_gradient(std::vector<W>& da) {
    std::vector<W> ds = zeros(s_.batch * s_.hidden);
    for (Index b = 0; b < s_.batch; ++b) {
      for (Index k = 0; k < s_.hidden; ++k) {
        for (Index h = 0; h < s_.hidden; ++h) {
          at(ds, b * s_.hidden + h) += at(da, b * s_.hidden + k) * W(n_.w_hh[k * s_.hidden + h]);
        }
      }
    }
    return ds;
  }

  void add_weight_gradients(Index t, Index b, Index h, W da) {
    for (Index i = 0; i < s_.inputs; ++i) {
      const Index at_x = (t * s_.batch + b) * s_.inputs + i;
      at(out_.dw_ih, h * s_.inputs + i) += da * W(n_.x[at_x]);
      at(out_.dx, at_x) += da * W(n_.w_ih[h * s_.inputs + i]);
    }
    for (Index k = 0; k < s_.hidden; ++k) {
      at(out_.dw_hh, h * s_.hidden + k) += da * state(t - 1, b, k);
    }
    if (n_.biased()) {
      at(out_.db_ih, h) += da;
      at(out_.db_hh, h) += da;
    }
  }

  const Network<T>& n_;
  const Sizes s_;
  const Problem<T> p_;
  const GuardedArray<T>& states_;
  Expected<T> out_;
};

}  // namespace bptt::test
