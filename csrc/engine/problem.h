// What a call computes: plain data, filled in by bindings/. All arrays are dense and row-major.
#pragma once

#include <cstdint>

#include "contract/kernels.h"

namespace bptt {

template <class T>
struct Problem {
  CellId cell;
  Index steps, batch, inputs, hidden;  // T, B, I, H
  const T* x;                          // (T, B, I)
  const T* state;                      // (B, H) S_0
  const T* c;                          // (B, H) c_0, or null in a cell without c
  const T* w_ih;                       // (G H, I)
  const T* w_hh;                       // (G H, H)
  const T* b_ih;                       // (G H) or null
  const T* b_hh;                       // (G H) or null
};

// What a forward pass leaves, and a backward pass reads.
template <class T>
struct Record {
  T* y;      // (T, B, H) S_t
  T* c;      // (T, B, H) c_t, or null in a cell without c
  T* saved;  // (T, B, saved, H), or null: nothing to save, or to be computed again
};

// A linear readout O_t = W_o S_t + b_o and a loss of it.
template <class T>
struct Objective {
  LossId loss;
  Index outputs;            // O
  const T* w_ho;            // (O, H)
  const T* b_o;             // (O) or null
  const T* target;          // squared_error: (T, B, O), or (B, O) for a loss at one step
  const std::int64_t* ids;  // cross_entropy: (T, B), or (B)
  const T* weights;         // (T, B), or null for ones
  Index step;               // the only step of the loss, or -1 for all
  double scale;
};

// Whether gradients replace what their arrays hold, or are added to it.
enum class Write { overwrite, add };

// Where gradients are written, and how: all of them in the same way. Null is not computed.
template <class T>
struct Gradients {
  T* x;      // (T, B, I) or null
  T* state;  // (B, H)
  T* c;      // (B, H), or null in a cell without c
  T* w_ih;   // (G H, I) or null
  T* w_hh;   // (G H, H) or null
  T* b_ih;   // (G H) or null
  T* b_hh;   // (G H) or null
  T* w_ho;   // (O, H); null without an objective
  T* b_o;    // (O) or null
  Write write = Write::overwrite;
  // What passes by on the way, of every step; always overwritten, or null.
  T* deltas = nullptr;    // (deltas, T, B, H) da_t of each plane
  T* states = nullptr;    // (T, B, H) dL/dS_t
  T* memories = nullptr;  // (T, B, H) dL/dc_t, beside what S_t = o tanh(c_t) adds
};

}  // namespace bptt
