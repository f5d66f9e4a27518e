// What a call computes: plain data, filled in by bindings/. All arrays are dense and row-major;
// those of all steps have a row for each that takes part in a step, N in all. Of some of them the
// caller may have other rows, M in all: see `Places`.
#pragma once

#include <cstdint>

#include "engine/sequence.h"

namespace bptt {

// How much there is of everything.
struct Shape {
  Sequence sequence;     // T, B
  Index inputs, hidden;  // I, H
  Index outputs = 0;     // O of the readout, if there is one
  CellShape cell = kElmanShape;
  bool rows_apart = false;  // whether the sums over time of each row of the batch are wanted
  // The steps of a pass that is made part by part, of which alone arrays of all steps have rows: a
  // pointer to one is to where its step 0 would be. All steps by default.
  Range part{0, -1};
  Places places = {};  // of a pass that is not made part by part

  bool in_parts() const { return part.end >= 0; }
  Range steps_there() const { return in_parts() ? part : Range{0, sequence.steps}; }
};

template <class T>
struct Problem : Shape {
  CellId id;
  const T* x;      // (M, I)
  const T* state;  // (B, H) S_0
  const T* c;      // (B, H) c_0, or null in a cell without c
  const T* w_ih;   // (G H, I)
  const T* w_hh;   // (G H, H)
  const T* b_ih;   // (G H) or null
  const T* b_hh;   // (G H) or null

  // S of all steps, of which `y` are those after each.
  States<T> states(const T* y) const { return {state, y, sequence, hidden}; }
};

// What a forward pass leaves, and a backward pass reads.
template <class T>
struct Record {
  T* y;                // (N, H) S_t
  T* c;                // (N, H) c_t, or null in a cell without c
  T* saved;            // (N, saved, H), or null: nothing to save, or to be computed again
  T* shown = nullptr;  // (M, H) S_t once more, where the caller has other rows; zero in the padding
};

template <class T>
Record<const T> read_only(const Record<T>& r) {
  return {r.y, r.c, r.saved, r.shown};
}

// The part of the state that a gated cell reads of the step before by itself: c, or S without c.
template <class T>
States<T> carried_states(const Problem<T>& p, const Record<const T>& record) {
  if (p.cell.states > 1) return {p.c, record.c, p.sequence, p.hidden};
  return p.states(record.y);
}

// A linear readout O_t = W_o S_t + b_o and a loss of it.
template <class T>
struct Objective {
  LossId loss;
  Index outputs;            // O
  const T* w_ho;            // (O, H)
  const T* b_o;             // (O) or null
  const T* target;          // squared_error: (N, O), or (B, O) for a loss at one step
  const std::int64_t* ids;  // cross_entropy: (N), or (B)
  const T* weights;         // (N), or null for ones
  Index step;               // the only step of the loss, or -1 for all
  double scale;
};

// What a gradient takes from a step to the one before: W_s and what goes straight from state to
// state, or the latter alone.
enum class Route { whole, direct };

// Where dL/dS_t comes from: arrays of the caller, or a loss in place of dy; each may be null.
template <class T>
struct StateGradients {
  const T* dy;        // (M, H)
  const T* dc;        // (N, H)
  const T* dstate;    // (B, H)
  const T* dstate_c;  // (B, H)
  const Objective<T>* objective;
  Route route = Route::whole;  // direct: only where a gated cell's gates were saved
};

// Whether gradients replace what their arrays hold, or are added to it.
enum class Write { overwrite, add };

// What is written of the parameters' gradients of the rows of the batch: their sum; each, (B, ...);
// or the Frobenius norm of each, (B), which is never added.
enum class OfRows { sum, each, norm };

// Where gradients are written, and how: all of them in the same way. Null is not computed.
template <class T>
struct Gradients {
  T* x;      // (M, I) or null
  T* state;  // (B, H) or null
  T* c;      // (B, H) or null
  T* w_ih;   // (G H, I) or null
  T* w_hh;   // (G H, H) or null
  T* b_ih;   // (G H) or null
  T* b_hh;   // (G H) or null
  T* w_ho;   // (O, H) or null
  T* b_o;    // (O) or null
  Write write = Write::overwrite;
  OfRows of_rows = OfRows::sum;

  bool of_layer() const { return w_ih || w_hh || b_ih || b_hh; }
  bool of_readout() const { return w_ho || b_o; }
};

// What passes by on the way back, of every step; always overwritten. Each may be null.
template <class T>
struct Trace {
  T* deltas = nullptr;     // (deltas, N, H) da_t of each plane
  T* dstates = nullptr;    // (N, H) dL/dS_t
  T* dmemories = nullptr;  // (N, H) dL/dc_t, beside what S_t = o tanh(c_t) adds
};

// Whether any of them takes a way back through time.
template <class T>
bool takes_recurrence(const Gradients<T>& g, const Trace<T>& trace) {
  return g.x || g.state || g.c || g.of_layer() || trace.deltas || trace.dstates;
}

}  // namespace bptt
