// The contract between the leaf kernels and the engine: plain data, and one table of functions.
//
// Every instruction set fills one `KernelTable` (isa/), the CPU decides which one is used
// (dispatch/), and the engine calls through it. Nothing here depends on a vector type, so every
// layer may include this file.
//
// Matrices are read and written by vectors of `lanes` neighbouring columns ("strips"):
//
//     vector v of row r  =  data[v * strip_stride + r * row_stride + 0 .. lanes-1]
//
// Row-major storage with leading dimension ld is (strip_stride, row_stride) = (lanes, ld); a block
// of gradients that three products read is (rows * lanes, lanes), so that each strip is contiguous.
// A row_stride of 0 repeats one row (a bias).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace bptt {

using Index = std::ptrdiff_t;

template <class T>
struct Strips {
  T* data;
  Index strip_stride;
  Index row_stride;
};

// Copies a matrix, element (n, k) at source[n * stride_n + k * stride_k], into panels of `width`
// columns: panels[n0 * panel_rows + (row_offset + k) * w + (n - n0)], where w = width, or for the
// last panel what is left, rounded up to whole vectors and filled with zeros.
//
// Several matrices of equal size, `gate_stride` apart, are packed as one by taking vectors of their
// columns in turn, so that the gates of a unit lie side by side; stride_k is 1 then.
template <class T>
struct Pack {
  const T* source;
  Index stride_n, stride_k;  // one of them is 1
  Index columns;             // of a matrix: n runs over [0, columns)
  Index rows;                // k runs over [0, rows)
  Index width;               // a multiple of lanes
  T* panels;
  Index panel_rows;  // rows that the panels have in all
  Index row_offset;  // where row k = 0 goes
  Index gates = 1;
  Index gate_stride = 0;
};

// Most gates of a cell, and sums that a product adds up.
inline constexpr int kMostGates = 4;

// out = init + sum over segments of a · w + added, by panels of `product_width` columns. What is
// much larger than the sums is better added: terms that start from it are each rounded to its last
// place.
template <class T>
struct Product {
  struct Segment {
    Strips<const T> a;  // (rows, k)
    Index k;
    const T* panels;  // (k, columns) packed
  };
  Index rows;
  Index columns;
  Index begin, end;      // columns to compute in this call; begin is a multiple of the width
  Strips<const T> init;  // (rows, columns); data null for zero
  Segment segments[kMostGates];  // summed in this order, each over k upwards; unused: k = 0
  Strips<T> out;                 // (rows, columns)
  Strips<const T> added = {};    // (rows, columns); data null for zero
  // Whether the panels come from beyond the second-level cache. Then each is fetched into it while
  // the one before is multiplied.
  bool far = false;
  // Whether the last panel comes first: of weights that are read again and again, each time the
  // other way round, some are still in a cache that cannot hold all of them.
  bool downward = false;
  // (rows) which row of `out`, and of `added`, each one is; null if they are in that order.
  const Index* out_rows = nullptr;
};

// What `outer` reads by panels of `outer_width` columns: a packed matrix, or a row-major one as it
// lies, whose columns are whole vectors. Column n of row r, in the panel that begins at n0 and is w
// wide, is at data[n0 * panel_stride + r * (row_stride ? row_stride : w) + (n - n0)].
template <class T>
struct Columns {
  const T* data;
  Index panel_stride;  // packed: the panels' rows; else 1
  Index row_stride;    // packed: 0
};

// Rows of a sum: `groups` times `rows` of them (the rows of the batch that take part, at one step
// of time after the other). How far groups are apart, each operand says.
struct RowGroups {
  Index groups, rows;
};

// out += leftᵀ · right, summed over the rows upwards.
template <class T>
struct Outer {
  RowGroups sum;
  Strips<const T> left;  // units, with row_stride = lanes
  Index left_step;       // rows between the groups of `left`
  Index begin, end;      // units to compute in this call; begin is a multiple of lanes
  Columns<T> right;
  Index right_first;  // the row of `right` that belongs to row 0 of `left`
  Index right_step;
  Index columns;
  T* out;  // (units, columns) row-major
  Index out_stride;
  // Whether the rows of `right` come from beyond the second-level cache, and are better fetched
  // into it ahead, to be used by many units at once.
  bool far = false;
};

// Each out[u] += sum over rows of left[row][u], by partial sums of kRowsOfPartialSum rows: there
// are no fused products here to keep the error of a plain running sum small.
inline constexpr Index kRowsOfPartialSum = 16;

template <class T>
struct ColumnSums {
  RowGroups sum;
  Strips<const T> left;  // units
  Index left_step;
  Index begin, end;  // units; begin is a multiple of lanes
  T* out[2];         // (units), either may be null
};

// Of so many values: adds the scalar products of gemm/scalar_products.h to `sums`, and `term` to
// `rest`; then `term` is zero.
inline constexpr int kScalarProducts = 5;

template <class T>
struct ScalarProducts {
  Index size;
  T* term;
  T* rest;
  const T* total;
  double* sums;  // (kScalarProducts)
};

// Rows of S_t that are written once more, to an array of `row_stride`: row r to its row rows[r].
template <class T>
struct Shown {
  T* data = nullptr;  // null: nowhere
  Index row_stride = 0;
  const Index* rows = nullptr;
  const Index* next_rows = nullptr;  // of the next step, whose lines are fetched meanwhile; or null
};

// The part of an Elman cell's step that acts on each unit by itself, in place.
template <class T>
struct Pointwise {
  Index rows;
  Index begin, end;   // units; begin is a multiple of lanes
  Strips<const T> y;  // (rows, units) S_t; backward only
  Strips<T> values;   // (rows, units) forward: a_t -> S_t; backward: dS_t -> da_t
  // The same places of the next step, fetched into the cache meanwhile; data may be null.
  Strips<T> next_values = {};
  Strips<const T> next_y = {};
  Strips<const T> next_ds = {};  // what its values will be added to
  Shown<T> shown = {};           // forward only
};

// A gated cell's step, from the sums of its gates to its state. Arrays have `hidden` columns a row,
// but for the sums: value (gate g, unit u) of a row is at sums[(v * G + g) * lanes + l], where u is
// lane l of vector v.
template <class T>
struct GatesForward {
  Index rows;
  Index begin, end;  // units; begin is a multiple of lanes
  Index hidden;
  const T* sums;       // b_ih + b_hh + W_x x + W_s S; in a cell that has both apart, b_ih + W_x x
  const T* recurrent;  // and in that b_hh + W_s S
  Index sums_stride;   // from a row of sums to the next
  const T* previous;   // (rows, hidden) c_{t-1}, or S_{t-1} in a cell without c
  // What it computes; each may be null.
  T* y;      // (rows, hidden) S_t
  T* c;      // (rows, hidden) c_t
  T* saved;  // (rows, saved, hidden)
  // Rows to the same of the next step, whose lines are fetched meanwhile; 0 if there is none.
  Index next_rows;
  Shown<T> shown = {};
};

// Its adjoint: da = dL/d(sums) of each gate, in strips like Elman's, one plane a gate.
template <class T>
struct GatesBackward {
  Index rows;
  Index begin, end;
  Index hidden;
  const T* saved;     // (rows, saved, hidden)
  const T* previous;  // (rows, hidden) as in the forward pass
  const T* c;         // (rows, hidden) c_t
  const T* dc;        // (rows, hidden) what c_t gets from outside, or null
  const T* ds;        // (rows, padded) dL/dS_t, but for what the cell carries
  T* carry;           // (rows, padded) what the step after this one carries back, and then this one
  Index padded;       // from a row of these two to the next
  T* delta;  // plane p, vector v, row r: at p * plane_stride + v * strip_stride + r * lanes
  Index plane_stride, strip_stride;
  // `saved` of the step before, fetched into the cache meanwhile; or null.
  const T* next_saved = nullptr;
};

// What the engine has to know of a cell: how many of what.
struct CellShape {
  Index gates;   // G: w_ih and w_hh have G * H rows
  Index states;  // parts of a state: S, and c in a cell that has it
  Index saved;   // values a unit that the forward pass leaves to the backward pass, beside states
  bool apart;    // the last gate takes W_x x and W_s S apart, not as their sum

  bool gated() const { return saved > 0; }
  // Planes of da: one for each sum that the cell takes.
  Index deltas() const { return gates + (apart ? 1 : 0); }
  // The plane that belongs to gate g of W_s; that of W_x is g.
  Index recurrent_delta(Index g) const { return apart && g == gates - 1 ? gates : g; }
};

// One gate, one state, nothing saved beside it.
inline constexpr CellShape kElmanShape = {1, 1, 0, false};

// A cell. Elman cells have the first two functions, gated cells the others.
template <class T>
struct Cell {
  const char* name;
  CellShape shape;
  void (*forward)(const Pointwise<T>&);
  void (*backward)(const Pointwise<T>&);
  void (*gates_forward)(const GatesForward<T>&);
  void (*gates_backward)(const GatesBackward<T>&);
};

// Where a cell is in `Kernels::cells`: the same in every table.
enum class CellId : int {};

// Each row's loss, and the gradient of scale * weight * loss in place of the outputs. Both are 0
// where the weight is, and nothing else of that row is read.
template <class T>
struct LossRows {
  Index rows;
  Index outputs;
  T* o;  // (rows, outputs) O_t -> dL/dO_t
  Index o_stride;
  const T* target;          // (rows, outputs); squared_error
  const std::int64_t* ids;  // (rows); cross_entropy
  const T* weights;         // (rows), or null for ones
  T scale;
  double* losses;  // (rows) weight * loss, not scaled
};

enum class LossId : int { squared_error, cross_entropy };
inline constexpr int kLosses = 2;
inline constexpr const char* kLossNames[kLosses] = {"squared_error", "cross_entropy"};

template <class T>
struct Kernels {
  Index lanes;
  Index product_width;  // columns of a packed panel that `product` reads
  Index outer_width;    // columns of a packed panel that `outer` reads
  void (*pack)(const Pack<T>&);
  void (*product)(const Product<T>&);
  void (*outer)(const Outer<T>&);
  void (*column_sums)(const ColumnSums<T>&);
  void (*scalar_products)(const ScalarProducts<T>&);
  std::span<const Cell<T>> cells;
  void (*losses[kLosses])(const LossRows<T>&);
  // Elementary functions over n values, for the tests of their accuracy.
  void (*tanh)(const T* x, T* y, Index n);
  void (*sigmoid)(const T* x, T* y, Index n);
  void (*exp)(const T* x, T* y, Index n);
  // The bench's yardsticks: multiply-adds in independent chains, without loads; and in a product's
  // tile, with operands from the first-level cache. They return the flops done.
  double (*fma_chains)(Index iterations);
  double (*fma_tile)(Index iterations);
};

struct KernelTable {
  const char* name;
  Kernels<float> f32;
  Kernels<double> f64;

  template <class T>
  const Kernels<T>& of() const {
    if constexpr (sizeof(T) == sizeof(float)) {
      return f32;
    } else {
      return f64;
    }
  }
};

}  // namespace bptt
