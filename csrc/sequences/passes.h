// The two passes of a layer over padded sequences (row_map.h). Where the engine's rows are not the
// caller's, they are copied at the border, by all threads; beyond the end of a sequence no row is
// read, and zeros are written.
//
// Interrupted calls, and errors, are those of engine/engine.h.
#pragma once

#include "engine/engine.h"
#include "sequences/row_map.h"

namespace bptt {

// All arrays are dense and row-major, with a row for each step of each sequence of the padding.
template <class T>
struct Layer {
  CellId cell;
  Padded sequences;      // T, B
  Index inputs, hidden;  // I, H
  const T* x;            // (T, B, I)
  State<const T> state;  // (B, H) each
  const T* w_ih;         // (G H, I)
  const T* w_hh;         // (G H, H)
  const T* b_ih;         // (G H) or null
  const T* b_hh;         // (G H) or null
};

// Fills `record` and `last`. Of the record, c and saved may be null: nothing goes back then, or the
// gates are to be computed again.
template <class T>
void forward(const Layer<T>& layer, const Record<T>& record, const State<T>& last,
             const Execution& execution, Interrupt& interrupt);

// `record` is whole, but for the gates. What comes in at y, and at each part of the last state, may
// be null. Gradients of each row of the batch are those of dense sequences only.
template <class T>
void backward(const Layer<T>& layer, const Record<const T>& record, const T* dy,
              const State<const T>& dlast, const Gradients<T>& gradients,
              const Execution& execution, Interrupt& interrupt);

}  // namespace bptt
