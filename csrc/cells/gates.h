// The walk over the units of a gated cell's step, and where they find what they read and write.
#pragma once

#include "contract/kernels.h"
#include "simd/partial.h"
#include "simd/vec.h"

namespace bptt::BPTT_ISA {

// σ' and tanh', written in the value of the function.
template <class T>
BPTT_INLINE Vec<T> slope_of_sigmoid(Vec<T> s) {
  return fma(-s, s, s);
}
template <class T>
BPTT_INLINE Vec<T> slope_of_tanh(Vec<T> s) {
  return fma(-s, s, broadcast(T(1)));
}

// A vector of units of a row; the last one of a row may be partial.
template <class T, class Call>
struct Units {
  const Call& call;
  Index row, unit;

  BPTT_INLINE Index exist() const { return call.hidden - unit; }
  // From a (rows, hidden) array.
  BPTT_INLINE Vec<T> load(const T* array) const {
    return load_up_to(array + row * call.hidden + unit, exist());
  }
  BPTT_INLINE Index saved_at(Index planes, Index plane) const {
    return (row * planes + plane) * call.hidden + unit;
  }
};

template <class T>
struct ForwardUnits : Units<T, GatesForward<T>> {
  BPTT_INLINE Vec<T> sum(const T* sums, Index gates, Index gate) const {
    return bptt::BPTT_ISA::load(sums + this->row * this->call.sums_stride + this->unit * gates +
                                gate * kLanes<T>);
  }
  // To an array that may be null; fetches the same place of the next step.
  BPTT_INLINE void store(T* array, Vec<T> value) const {
    if (array) write(array + this->row * this->call.hidden + this->unit, value, 1);
  }
  BPTT_INLINE void save(Index planes, Index plane, Vec<T> value) const {
    T* const saved = this->call.saved;
    if (saved) write(saved + this->saved_at(planes, plane), value, planes);
  }

 private:
  BPTT_INLINE void write(T* to, Vec<T> value, Index planes) const {
    prefetch(to + this->call.next_rows * planes * this->call.hidden);
    store_up_to<T>(to, value, this->exist());
  }
};

template <class T>
struct BackwardUnits : Units<T, GatesBackward<T>> {
  BPTT_INLINE Vec<T> saved(Index planes, Index plane) const {
    return load_up_to(this->call.saved + this->saved_at(planes, plane), this->exist());
  }
  // Fetches what the step before will read in this place.
  BPTT_INLINE void fetch(const T* next_saved, Index planes) const {
    for (Index plane = 0; plane < planes; ++plane) {
      prefetch(next_saved + this->saved_at(planes, plane));
    }
  }
  BPTT_INLINE Index padded_at() const { return this->row * this->call.padded + this->unit; }
  BPTT_INLINE Vec<T> ds() const { return bptt::BPTT_ISA::load(this->call.ds + padded_at()); }
  BPTT_INLINE Vec<T> carry() const { return bptt::BPTT_ISA::load(this->call.carry + padded_at()); }
  BPTT_INLINE void carry(Vec<T> value) const { store<T>(this->call.carry + padded_at(), value); }
  BPTT_INLINE void delta(Index plane, Vec<T> value) const {
    const GatesBackward<T>& p = this->call;
    store<T>(p.delta + plane * p.plane_stride + this->unit / kLanes<T> * p.strip_stride +
                 this->row * kLanes<T>,
             value);
  }
};

template <class T, class Call, class F>
BPTT_INLINE void walk(const Call& p, F&& f) {
  for (Index row = 0; row < p.rows; ++row) {
    for (Index unit = p.begin; unit < p.end; unit += kLanes<T>) f(row, unit);
  }
}

template <class T, class F>
BPTT_INLINE void for_each_unit_vector(const GatesForward<T>& p, F&& f) {
  walk<T>(p, [&](Index row, Index unit) { f(ForwardUnits<T>{{p, row, unit}}); });
}
template <class T, class F>
BPTT_INLINE void for_each_unit_vector(const GatesBackward<T>& p, F&& f) {
  walk<T>(p, [&](Index row, Index unit) { f(BackwardUnits<T>{{p, row, unit}}); });
}

}  // namespace bptt::BPTT_ISA
