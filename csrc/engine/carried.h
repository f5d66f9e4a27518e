// What the calls of a way back that is made part by part hand on, from the last part of the steps
// to the first one: the sums so far, and the gradient that passes the border of two parts.
#pragma once

#include <stdexcept>
#include <vector>

#include "engine/problem.h"

namespace bptt {

// Neumaier's compensated sum (1974, ZAMM 54), for many terms added one by one.
class CompensatedSum {
 public:
  void add(double term);
  double value() const;

 private:
  double sum_ = 0;
  double rounded_off_ = 0;  // what rounding took from it
};

template <class T>
class Carried {
 public:
  // Whether a part has been there.
  bool begun() const { return begun_; }

  // Before each part, whose problem it is, and after it.
  void begin(const Problem<T>& p) {
    const Index state = p.sequence.batch * p.hidden;
    sized(deltas_, p.cell.deltas() * state);
    sized(carry_, p.cell.gated() ? state : 0);
  }
  void resume() { begun_ = true; }

  // Of the first step of the last part: da of each plane (planes, B, H), and (B, H) what goes past
  // it straight to the step before, in a gated cell. Zeros before there was a part.
  T* deltas() { return deltas_.data(); }
  T* carry() { return carry_.data(); }

  // What slices of the batch sum, as many values at each call; zeros at first.
  T* sums(Index count) { return sized(sums_, count); }
  CompensatedSum* losses(Index count) { return sized(losses_, count); }

 private:
  // Throws std::invalid_argument if the parts are not of one pass.
  template <class Value>
  Value* sized(std::vector<Value>& values, Index count) {
    const auto size = static_cast<std::size_t>(count);
    if (begun_ && values.size() != size) {
      throw std::invalid_argument("carried: expected that of another pass");
    }
    values.resize(size);
    return values.data();
  }

  bool begun_ = false;
  std::vector<T> deltas_, carry_, sums_;
  std::vector<CompensatedSum> losses_;
};

}  // namespace bptt
