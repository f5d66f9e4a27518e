// A layer for the kernels of csrc/cuda: what its passes read, and what they have to write.
//
// What they have to write is computed by plain loops in double, from the equations as a textbook
// has them (csrc/cells/ states them).
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#define BPTT_ISA cuda
#include "simd/one_lane.h"

#include "check.h"
#include "cuda/pass.cuh"
#include "fibres/fibres.h"
#include "random.h"

namespace bptt::test {

using Size = std::size_t;

enum class CudaCell { linear, tanh, relu, lstm, gru };
inline constexpr const char* kCudaCells[] = {"linear", "tanh", "relu", "lstm", "gru"};

enum class Way { one_block, cluster, grid, steps };
inline constexpr const char* kWays[] = {"one block", "cluster", "grid", "step by step"};

struct LayerShape {
  CudaCell cell;
  Index steps, batch, hidden;
  bool ragged;
  // Whether b_hh of a GRU, gradients of the last state, and of every c come in.
  bool bias, last, dc;

  Index gates() const { return cell == CudaCell::lstm ? 4 : cell == CudaCell::gru ? 3 : 1; }
  Index saved() const { return gates() > 1 ? 4 : 0; }
  Index deltas() const { return cell == CudaCell::gru ? 4 : gates(); }
  bool has_c() const { return cell == CudaCell::lstm; }
};

inline std::ostream& operator<<(std::ostream& out, const LayerShape& s) {
  return out << kCudaCells[static_cast<int>(s.cell)] << ", T = " << s.steps << ", B = " << s.batch
             << ", H = " << s.hidden << (s.ragged ? ", ragged" : "") << (s.bias ? ", b_hh" : "")
             << (s.last ? ", dlast" : "") << (s.dc ? ", dc" : "");
}

template <class T>
struct Written {
  std::vector<T> y, c, saved, delta, dstate, dstate_c;

  template <class Other, class F>
  void for_each_with(const Other& other, F&& f) const {
    f("y", y, other.y);
    f("c", c, other.c);
    f("saved", saved, other.saved);
    f("delta", delta, other.delta);
    f("dstate", dstate, other.dstate);
    f("dstate_c", dstate_c, other.dstate_c);
  }
};

template <class T>
class CudaLayer {
 public:
  CudaLayer(const LayerShape& of, std::uint64_t seed) : shape(of) {
    Random random(seed);
    const Index T_ = shape.steps, B = shape.batch, H = shape.hidden, G = shape.gates();
    offsets.push_back(0);
    for (Index t = 0, active = B; t < T_; ++t) {
      // Rows end now and then; the first has all steps.
      while (shape.ragged && active > 1 && random.below(3) == 0)
        active -= 1 + random.below(active - 1);
      offsets.push_back(offsets.back() + active);
    }
    rows = static_cast<Index>(offsets.back());
    const auto fill = [&](std::vector<T>& array, Index count, double scale) {
      array.resize(static_cast<Size>(count));
      for (T& value : array) value = static_cast<T>(scale * random.uniform<double>());
    };
    fill(projected, rows * G * H, 1.5);
    fill(w_hh, G * H * H, 1.2 / std::sqrt(static_cast<double>(H)));
    fill(b_hh, shape.bias && shape.cell == CudaCell::gru ? G * H : 0, 1);
    fill(state, B * H, 1);
    fill(state_c, shape.has_c() ? B * H : 0, 1);
    fill(dy, rows * H, 1);
    fill(dc, shape.has_c() && shape.dc ? rows * H : 0, 1);
    fill(dlast, shape.last ? B * H : 0, 1);
    fill(dlast_c, shape.has_c() && shape.last ? B * H : 0, 1);
  }

  // The same in another type.
  template <class Other>
  explicit CudaLayer(const CudaLayer<Other>& o) : shape(o.shape), rows(o.rows), offsets(o.offsets) {
    const auto copy = [](std::vector<T>& to, const std::vector<Other>& from) {
      for (Other value : from) to.push_back(static_cast<T>(value));
    };
    copy(projected, o.projected), copy(w_hh, o.w_hh), copy(b_hh, o.b_hh);
    copy(state, o.state), copy(state_c, o.state_c), copy(dy, o.dy), copy(dc, o.dc);
    copy(dlast, o.dlast), copy(dlast_c, o.dlast_c);
  }

  Index at(Index t) const { return static_cast<Index>(offsets[static_cast<Size>(t)]); }
  Index active(Index t) const { return t >= shape.steps ? 0 : at(t + 1) - at(t); }

  Written<T> unwritten() const {
    const Index H = shape.hidden, N = rows, BH = shape.batch * H;
    const auto array = [](Index n) {
      return std::vector<T>(static_cast<Size>(n), std::numeric_limits<T>::quiet_NaN());
    };
    const Index c = shape.has_c() ? 1 : 0;
    return {
        array(N * H), array(c * N * H), array(N * shape.saved() * H), array(N * shape.deltas() * H),
        array(BH),    array(c * BH)};
  }

  cuda::Rows sequence() const {
    return {shape.steps, shape.batch, shape.ragged ? offsets.data() : nullptr};
  }
  static const T* optional(const std::vector<T>& array) {
    return array.empty() ? nullptr : array.data();
  }
  cuda::ForwardPass<T> forward(Written<T>& out) const {
    return {sequence(),   shape.hidden,   projected.data(), w_hh.data(),  optional(b_hh),
            state.data(), state_c.data(), out.y.data(),     out.c.data(), out.saved.data()};
  }
  cuda::BackwardPass<T> backward(Written<T>& out) const {
    return {sequence(),       shape.hidden,      w_hh.data(),        state.data(),
            state_c.data(),   out.y.data(),      out.c.data(),       out.saved.data(),
            optional(dy),     optional(dc),      optional(dlast),    optional(dlast_c),
            out.delta.data(), out.dstate.data(), out.dstate_c.data()};
  }

  LayerShape shape;
  Index rows = 0;
  std::vector<cuda::Index> offsets;
  std::vector<T> projected, w_hh, b_hh, state, state_c, dy, dc, dlast, dlast_c;
};

// The same in double.
inline Written<double> widened(const Written<float>& of) {
  const auto wide = [](const std::vector<float>& v) {
    return std::vector<double>(v.begin(), v.end());
  };
  return {wide(of.y),     wide(of.c),      wide(of.saved),
          wide(of.delta), wide(of.dstate), wide(of.dstate_c)};
}

// --- Formats -----------------------------------------------------------------------------------

enum class Format { exact, bf16, f16, tf32 };
inline constexpr const char* kFormats[] = {"exact", "bf16", "f16", "tf32"};

// The nearest value that a format has: of two that are as near the even one, in tf32 the larger.
inline double nearest(Format format, double v) {
  if (format == Format::exact || v == 0 || !std::isfinite(v)) return v;
  const int bits = format == Format::bf16 ? 8 : 11, least = format == Format::f16 ? -14 : -126;
  const double spacing = std::ldexp(1.0, std::max(std::ilogb(v), least) - bits + 1);
  const double count = v / spacing;
  const double near = (format == Format::tf32 ? std::round(count) : std::nearbyint(count));
  const double most = format == Format::f16 ? 65504.0 : std::numeric_limits<float>::max();
  return std::fabs(near * spacing) > most ? std::copysign(HUGE_VAL, v) : near * spacing;
}

// --- Plain loops -------------------------------------------------------------------------------

// With a format, W_hh and what it multiplies are rounded to it. With `follow`, what others made of
// the layer, each step begins with what they have written, so that it differs from theirs by the
// errors of one step alone: no value of theirs is rounded to one neighbour here and to another
// there.
class PlainLoops {
 public:
  explicit PlainLoops(const CudaLayer<double>& layer, Format format = Format::exact,
                      const Written<double>* follow = nullptr)
      : l_(layer),
        s_(layer.shape),
        H_(s_.hidden),
        G_(s_.gates()),
        format_(format),
        w_hh_(layer.w_hh),
        out_(layer.unwritten()),
        seen_(follow ? *follow : out_) {
    for (double& w : w_hh_) w = nearest(format, w);
  }

  Written<double> run() {
    for (Index t = 0; t < s_.steps; ++t) {
      for (Index b = 0; b < l_.active(t); ++b) forward(t, b);
    }
    for (Index b = 0; b < s_.batch; ++b) backward(b);
    return out_;
  }

 private:
  using Vector = std::vector<double>;
  static double& at(Vector& v, Index i) { return v[static_cast<Size>(i)]; }
  static double at(const Vector& v, Index i) { return v[static_cast<Size>(i)]; }
  static double sigma(double a) { return 1 / (1 + std::exp(-a)); }

  // S_{t-1} or c_{t-1} of unit h.
  double before(const Vector& kept, const Vector& initial, Index t, Index b, Index h) const {
    return t == 0 ? at(initial, b * H_ + h) : at(kept, (l_.at(t - 1) + b) * H_ + h);
  }

  void forward(Index t, Index b) {
    const Index row = l_.at(t) + b;
    for (Index h = 0; h < H_; ++h) {
      double i[4], r[4];
      for (Index g = 0; g < G_; ++g) {
        i[g] = at(l_.projected, (row * G_ + g) * H_ + h);
        r[g] = l_.b_hh.empty() ? 0 : at(l_.b_hh, g * H_ + h);
        for (Index k = 0; k < H_; ++k) {
          r[g] += at(w_hh_, (g * H_ + h) * H_ + k) *
                  nearest(format_, before(seen_.y, l_.state, t, b, k));
        }
      }
      const auto save = [&](Index plane, double v) {
        at(out_.saved, (row * 4 + plane) * H_ + h) = v;
      };
      double& s = at(out_.y, row * H_ + h);
      switch (s_.cell) {
        case CudaCell::linear: s = i[0] + r[0]; break;
        case CudaCell::tanh: s = std::tanh(i[0] + r[0]); break;
        case CudaCell::relu: s = std::max(0.0, i[0] + r[0]); break;
        case CudaCell::lstm: {
          const double in = sigma(i[0] + r[0]), f = sigma(i[1] + r[1]);
          const double g = std::tanh(i[2] + r[2]), o = sigma(i[3] + r[3]);
          const double c = f * before(seen_.c, l_.state_c, t, b, h) + in * g;
          at(out_.c, row * H_ + h) = c;
          s = o * std::tanh(c);
          save(0, in), save(1, f), save(2, g), save(3, o);
          break;
        }
        case CudaCell::gru: {
          const double reset = sigma(i[0] + r[0]), z = sigma(i[1] + r[1]);
          const double n = std::tanh(i[2] + reset * r[2]);
          s = (1 - z) * n + z * before(seen_.y, l_.state, t, b, h);
          save(0, reset), save(1, z), save(2, n), save(3, r[2]);
        }
      }
    }
  }

  static double given(const Vector& v, Index i) { return v.empty() ? 0 : at(v, i); }

  void backward(Index b) {
    Vector ds(static_cast<Size>(H_)), dc(ds);
    for (Index h = 0; h < H_; ++h) {
      at(ds, h) = given(l_.dlast, b * H_ + h), at(dc, h) = given(l_.dlast_c, b * H_ + h);
    }
    Index t = s_.steps;
    while (t > 0 && l_.active(t - 1) <= b) --t;
    for (--t; t >= 0; --t) step_back(t, b, ds, dc);
    for (Index h = 0; h < H_; ++h) {
      at(out_.dstate, b * H_ + h) = at(ds, h);
      if (s_.has_c()) at(out_.dstate_c, b * H_ + h) = at(dc, h);
    }
  }

  // From dS_t and dc_t, but for what comes from outside, to dS_{t-1} and dc_{t-1}.
  void step_back(Index t, Index b, Vector& ds, Vector& dc) {
    const Index row = l_.at(t) + b, D = s_.deltas();
    Vector direct(static_cast<Size>(H_));
    for (Index h = 0; h < H_; ++h) {
      const double d = at(ds, h) + at(l_.dy, row * H_ + h), s = at(seen_.y, row * H_ + h);
      const auto saved = [&](Index plane) { return at(seen_.saved, (row * 4 + plane) * H_ + h); };
      const auto delta = [&](Index g) -> double& { return at(out_.delta, (row * D + g) * H_ + h); };
      switch (s_.cell) {
        case CudaCell::linear: delta(0) = d; break;
        case CudaCell::tanh: delta(0) = d * (1 - s * s); break;
        case CudaCell::relu: delta(0) = s > 0 ? d : 0; break;
        case CudaCell::lstm: {
          const double i = saved(0), f = saved(1), g = saved(2), o = saved(3);
          const double tanh_c = std::tanh(at(seen_.c, row * H_ + h));
          const double all = at(dc, h) + given(l_.dc, row * H_ + h) + d * o * (1 - tanh_c * tanh_c);
          delta(0) = all * g * i * (1 - i);
          delta(1) = all * before(seen_.c, l_.state_c, t, b, h) * f * (1 - f);
          delta(2) = all * i * (1 - g * g);
          delta(3) = d * tanh_c * o * (1 - o);
          at(dc, h) = all * f;
          break;
        }
        case CudaCell::gru: {
          const double r = saved(0), z = saved(1), n = saved(2), h_n = saved(3);
          const double da_n = d * (1 - z) * (1 - n * n);
          delta(0) = da_n * h_n * r * (1 - r);
          delta(1) = d * (before(seen_.y, l_.state, t, b, h) - n) * z * (1 - z);
          delta(2) = da_n, delta(3) = r * da_n;
          at(direct, h) = z * d;
        }
      }
    }
    for (Index k = 0; k < H_; ++k) {
      double sum = at(direct, k);
      for (Index g = 0; g < G_; ++g) {
        const Index plane = D > G_ && g == G_ - 1 ? G_ : g;
        for (Index h = 0; h < H_; ++h) {
          sum += at(w_hh_, (g * H_ + h) * H_ + k) *
                 nearest(format_, at(seen_.delta, (row * D + plane) * H_ + h));
        }
      }
      at(ds, k) = sum;
    }
  }

  const CudaLayer<double>& l_;
  const LayerShape& s_;
  const Index H_, G_;
  const Format format_;
  Vector w_hh_;
  Written<double> out_;
  const Written<double>& seen_;
};

// --- Kernels -----------------------------------------------------------------------------------

// How the kernels are run: the seed of the order of threads, and a word that is not there in one of
// the passes.
struct Schedule {
  unsigned seed = 0;
  const fibres::Place* without_forward = nullptr;
  const fibres::Place* without_backward = nullptr;
};

// What was written, and what the launches tell, first of the forward pass and then of the other.
template <class T>
struct Ran {
  Written<T> written;
  fibres::Outcome forward, backward;
};

// The products that a library makes of every step.
template <class T>
struct StepProducts {
  const CudaLayer<T>& layer;
  std::vector<T> recurrent;

  explicit StepProducts(const CudaLayer<T>& of)
      : layer(of),
        recurrent(static_cast<Size>(of.shape.batch * of.shape.gates() * of.shape.hidden)) {}

  void forward(Index t, const Written<T>& out) {
    const Index H = layer.shape.hidden, R = layer.shape.gates() * H;
    for (Index b = 0; b < layer.active(t); ++b) {
      const T* const s = t == 0 ? &layer.state[static_cast<Size>(b * H)]
                                : &out.y[static_cast<Size>((layer.at(t - 1) + b) * H)];
      for (Index r = 0; r < R; ++r) {
        T sum = 0;
        for (Index k = 0; k < H; ++k) sum += layer.w_hh[static_cast<Size>(r * H + k)] * s[k];
        recurrent[static_cast<Size>(b * R + r)] = sum;
      }
    }
  }

  // Of the deltas of step t.
  void backward(Index t, const Written<T>& out) {
    const Index H = layer.shape.hidden, G = layer.shape.gates(), D = layer.shape.deltas();
    for (Index b = 0; b < layer.active(t); ++b) {
      for (Index k = 0; k < H; ++k) {
        T sum = 0;
        for (Index r = 0; r < G * H; ++r) {
          const Index plane = D > G && r / H == G - 1 ? G : r / H;
          sum += layer.w_hh[static_cast<Size>(r * H + k)] *
                 out.delta[static_cast<Size>(((layer.at(t) + b) * D + plane) * H + r % H)];
        }
        recurrent[static_cast<Size>(b * H + k)] = sum;
      }
    }
  }
};

// The largest error, in values that are above 1 relative to them; infinite if one is NaN.
template <class T>
double error_of(const std::vector<T>& found, const std::vector<double>& expected) {
  double worst = 0;
  for (Size i = 0; i < expected.size(); ++i) {
    const double error = std::fabs(static_cast<double>(found[i]) - expected[i]);
    const double relative = error / std::max(1.0, std::fabs(expected[i]));
    worst = relative <= worst ? worst : std::isnan(relative) ? HUGE_VAL : relative;
  }
  return worst;
}

template <class T>
double error_of(const Written<T>& found, const Written<double>& expected) {
  double worst = 0;
  found.for_each_with(expected, [&](const char*, const auto& a, const auto& b) {
    worst = std::max(worst, error_of(a, b));
  });
  return worst;
}

}  // namespace bptt::test
