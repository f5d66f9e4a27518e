// The walk over the units of a gated cell's step, and where they find what they read and write. The
// cell itself, of one vector of units, is a policy as in lstm.h.
#pragma once

#include "cells/shown.h"
#include "contract/kernels.h"
#include "simd/partial.h"
#include "simd/vec.h"

namespace bptt::BPTT_ISA {

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

// What adds nothing to any value, -0 included.
template <class T>
BPTT_INLINE Vec<T> nothing() {
  return broadcast(T(-0.0));
}

template <class T, class Cell>
void step_forward(const ForwardUnits<T>& at) {
  constexpr int kGates = Cell::kGates, kSaved = Cell::kSaved;
  const GatesForward<T>& p = at.call;
  Vec<T> sums[kGates], recurrent[kGates], saved[kSaved], c, s;
  BPTT_UNROLL for (int g = 0; g < kGates; ++g) {
    sums[g] = at.sum(p.sums, kGates, g);
    recurrent[g] = Cell::kApart ? at.sum(p.recurrent, kGates, g) : Vec<T>{};
  }
  Cell::forward(sums, recurrent, at.load(p.previous), saved, c, s);
  BPTT_UNROLL for (int plane = 0; plane < kSaved; ++plane) { at.save(kSaved, plane, saved[plane]); }
  if constexpr (Cell::kStates == 2) at.store(p.c, c);
  at.store(p.y, s);
}

template <class T, class Cell>
BPTT_INLINE void step_backward(const BackwardUnits<T>& at, const T* next_saved) {
  constexpr int kSaved = Cell::kSaved, kDeltas = Cell::kGates + (Cell::kApart ? 1 : 0);
  const GatesBackward<T>& p = at.call;
  at.fetch(next_saved, kSaved);
  Vec<T> saved[kSaved], c = {}, dc = nothing<T>(), carry = at.carry(), delta[kDeltas];
  BPTT_UNROLL for (int plane = 0; plane < kSaved; ++plane) {
    saved[plane] = at.saved(kSaved, plane);
  }
  if constexpr (Cell::kStates == 2) {
    c = at.load(p.c);
    if (p.dc) dc = at.load(p.dc);
  }
  Cell::backward(saved, at.load(p.previous), c, at.ds(), dc, carry, delta);
  BPTT_UNROLL for (int plane = 0; plane < kDeltas; ++plane) at.delta(plane, delta[plane]);
  at.carry(carry);
}

template <class T, class Cell>
void gates_forward(const GatesForward<T>& p) {
  for (Index row = 0; row < p.rows; ++row) {
    for (Index unit = p.begin; unit < p.end; unit += kLanes<T>) {
      step_forward<T, Cell>({{p, row, unit}});
    }
    if (p.shown.data) show(p.shown, row, p.y + row * p.hidden + p.begin, p.begin, p.end);
  }
}

template <class T, class Cell>
void gates_backward(const GatesBackward<T>& p) {
  const T* const next_saved = p.next_saved ? p.next_saved : p.saved;
  for (Index row = 0; row < p.rows; ++row) {
    for (Index unit = p.begin; unit < p.end; unit += kLanes<T>) {
      step_backward<T, Cell>({{p, row, unit}}, next_saved);
    }
  }
}

template <class T, class Cell>
constexpr bptt::Cell<T> gated_cell() {
  return {Cell::kName,
          {Cell::kGates, Cell::kStates, Cell::kSaved, Cell::kApart},
          nullptr,
          nullptr,
          gates_forward<T, Cell>,
          gates_backward<T, Cell>};
}

}  // namespace bptt::BPTT_ISA
