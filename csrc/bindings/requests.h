// What Python passes, read by its attributes into the engine's plain structs: the dataclasses of
// python/bptt/backends/data.py, Params, Grads and Objective.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "bindings/arrays.h"
#include "dispatch/dispatch.h"
#include "engine/engine.h"
#include "engine/lag_products.h"
#include "engine/readout_alone.h"

namespace bptt {

template <int N>
int id_of(const char* what, const char* const (&names)[N], const std::string& name) {
  for (int id = 0; id < N; ++id) {
    if (name == names[id]) return id;
  }
  throw py::value_error(std::string(what) + ": unknown name '" + name + "'");
}

inline CellId cell_of(const std::string& name) {
  if (const auto id = find_cell(name)) return *id;
  throw py::value_error("cell: unknown name '" + name + "'");
}

// The parts of a state, or of what belongs to each: as many arrays as the cell's state has.
template <class T, class Read>
State<T> read_parts(const char* name, py::handle value, const CellShape& cell, Read read) {
  const auto parts = py::cast<py::tuple>(value);
  if (static_cast<Index>(parts.size()) != cell.states) {
    throw py::value_error(std::string(name) + ": expected as many arrays as the state has parts");
  }
  return {read(name, parts[0]), parts.size() > 1 ? read(name, parts[1]) : nullptr};
}

template <class T>
State<const T> input_parts(const char* name, py::handle parts, const CellShape& cell,
                           const Dimensions& d) {
  return read_parts<const T>(name, parts, cell,
                             [&](auto what, py::handle array) { return input<T>(what, array, d); });
}

template <class T>
State<const T> optional_parts(const char* name, py::handle parts, const CellShape& cell,
                              const Dimensions& d) {
  return read_parts<const T>(name, parts, cell, [&](auto what, py::handle array) {
    return optional_input<T>(what, array, d);
  });
}

template <class T>
State<T> output_parts(const char* name, py::handle parts, const CellShape& cell,
                      const Dimensions& d) {
  return read_parts<T>(name, parts, cell,
                       [&](auto what, py::handle array) { return output<T>(what, array, d); });
}

// The name of an attribute, as a template argument: its Python string is made once.
template <std::size_t N>
struct Name {
  consteval Name(const char (&literal)[N]) { std::copy_n(literal, N, text); }
  char text[N];
};

// Attributes of Python objects, kept alive until a call is over: meanwhile the kernels read them
// without the GIL, and another thread may give the objects others.
class Held {
 public:
  Held() { objects_.reserve(40); }

  template <Name name>
  py::handle get(py::handle owner) {
    static PyObject* const text = PyUnicode_InternFromString(name.text);
    PyObject* const found = PyObject_GetAttr(owner.ptr(), text);
    if (!found) throw py::error_already_set();
    return objects_.emplace_back(py::reinterpret_steal<py::object>(found));
  }

 private:
  std::vector<py::object> objects_;
};

// f(T{}) with the dtype of a layer's x.
template <class F>
auto with_dtype_of(py::handle layer, F&& f) {
  Held held;
  return with_dtype(array_of("x", held.get<"x">(layer)), f);
}

// The Places of a layer's rows among so many of x, which are held; or None.
inline Places read_places(Held& held, py::handle places, Index rows_of_x) {
  if (places.is_none()) return {};
  const auto read = [&](const char* name, py::handle array) {
    const Index count = array_of(name, array).size();
    const Index* const rows = input<Index>(name, array, {count});
    const auto outside = [=](Index row) { return row < 0 || row >= rows_of_x; };
    if (std::any_of(rows, rows + count, outside)) throw py::value_error("places: out of range");
    return std::pair{rows, count};
  };
  const auto [rows, count] = read("rows", held.get<"rows">(places));
  const auto [padding, paddings] = read("padding", held.get<"padding">(places));
  if (count + paddings != rows_of_x) throw py::value_error("places: expected all rows of x");
  return {rows, padding, paddings, held.get<"spacing">(places).template cast<Index>()};
}

// Throws unless the rows of each step are spaced as the places say.
inline void expect_spacing(const Places& places, const Sequence& sequence) {
  for (Index t = 0; places.spacing != 0 && t < sequence.steps; ++t) {
    const Index first = places.of(sequence.row(t)), last = places.of(sequence.row(t + 1) - 1);
    if (last - first != (sequence.active(t) - 1) * places.spacing) {
      throw py::value_error("spacing: unexpected");
    }
  }
}

// Ragged rows, of which the offsets, held, say how many there are before each step; as many as step
// 0 has unless there are more, which have no step.
inline Sequence ragged_sequence(py::handle offsets, std::optional<Index> batch) {
  const auto given = array_of("offsets", offsets);
  if (given.ndim() != 1 || given.size() < (batch ? 1 : 2)) {
    throw py::value_error("offsets: unexpected rank or size");
  }
  const Index steps = given.size() - 1;
  Sequence sequence{steps, 0, input<Index>("offsets", offsets, {steps + 1})};
  sequence.batch = batch ? *batch : sequence.active(0);
  Index before = sequence.batch;
  for (Index t = 0; t < steps; ++t) {
    const Index active = sequence.active(t);
    if (active < 1 || active > before) throw py::value_error("offsets: rows that grow, or none");
    before = active;
  }
  if (sequence.offsets[0] != 0) throw py::value_error("offsets: expected 0 first");
  return sequence;
}

// What runs through a layer: as many rows at every step, or as the offsets say.
inline Sequence read_sequence(const py::array& x, py::handle state, py::handle offsets,
                              const Places& places) {
  if (offsets.is_none() && !places.moved()) {
    if (x.ndim() != 3) throw py::value_error("x: unexpected rank");
    return {x.shape(0), x.shape(1)};
  }
  const auto first = array_of("state", py::cast<py::tuple>(state)[0]);
  if (first.ndim() != 2) throw py::value_error("state: unexpected rank");
  const Index batch = first.shape(0), rows = rows_in(x) - places.paddings;
  if (offsets.is_none()) {
    if (batch < 1 || rows % batch != 0) {
      throw py::value_error("places: expected as many rows at every step");
    }
    return {rows / batch, batch};
  }
  const Sequence sequence = ragged_sequence(offsets, batch);
  if (places.moved() && sequence.rows() != rows) {
    throw py::value_error("places: expected one of each row");
  }
  return sequence;
}

// Rows of all steps that are there.
inline Index rows_there(const Shape& s) {
  return s.sequence.row(s.steps_there().end) - s.sequence.row(s.steps_there().begin);
}

// The axes of an array of all steps that are there: (T, B, ...) or, of a ragged batch, (N, ...);
// and before them, `planes` of these.
inline Dimensions rows_of(const Shape& s, std::initializer_list<Index> rest) {
  return s.sequence.dense() ? Dimensions({s.steps_there().size(), s.sequence.batch}, rest)
                            : Dimensions({rows_there(s)}, rest);
}
inline Dimensions planes_of(Index planes, const Shape& s, Index hidden) {
  return s.sequence.dense() ? Dimensions({planes, s.steps_there().size(), s.sequence.batch, hidden})
                            : Dimensions({planes, rows_there(s), hidden});
}

// The same of an array that the caller may have in other rows: of so many columns, and any axes
// before.
inline Dimensions callers_rows(const Shape& s, py::handle array, Index columns) {
  if (!s.places.moved() || !py::isinstance<py::array>(array)) return rows_of(s, {columns});
  const auto found = py::reinterpret_borrow<py::array>(array);
  if (rows_in(found) != s.sequence.rows() + s.places.paddings) return rows_of(s, {columns});
  return Dimensions(found.shape(), found.ndim() - 1, columns);
}

// Where step 0 would be of such an array, whose rows have so many values.
template <class T>
T* from_step_0(const Shape& s, T* array, Index values) {
  const Index before = s.sequence.row(s.steps_there().begin) * values;
  return array && before ? array - before : array;
}

// Of a Place the pass of which a layer is a part: how many steps, or rows before each; and which.
inline Sequence read_whole(Held& held, py::handle place, const Sequence& there, Range& part) {
  const auto begin = held.get<"start">(place).template cast<Index>();
  part = {begin, begin + there.steps};
  Sequence whole{held.get<"steps">(place).template cast<Index>(), there.batch};
  if (!there.dense()) {
    const auto offsets = array_of("offsets", held.get<"offsets">(place));
    whole.offsets = input<Index>("offsets", offsets, {whole.steps + 1});
  }
  if (begin < 0 || there.steps < 1 || part.end > whole.steps ||
      whole.row(part.end) - whole.row(begin) != there.rows()) {
    throw py::value_error("start: expected a part of the steps");
  }
  return whole;
}

// A Layer; with a Place, the part of a longer one.
template <class T>
Problem<T> read_layer(Held& held, py::handle layer, py::handle place = py::none()) {
  const CellId id = cell_of(held.get<"name">(held.get<"cell">(layer)).cast<std::string>());
  const CellShape& cell = shape_of(id);
  const py::handle params = held.get<"params">(layer);
  const auto x = array_of("x", held.get<"x">(layer)),
             w_hh = array_of("w_hh", held.get<"w_hh">(params));
  if (x.ndim() < 2 || w_hh.ndim() != 2) throw py::value_error("x, w_hh: unexpected rank");
  const py::handle state = held.get<"state">(layer);
  const Places places = read_places(held, held.get<"places">(layer), rows_in(x));
  Shape shape{read_sequence(x, state, held.get<"offsets">(layer), places), x.shape(x.ndim() - 1),
              w_hh.shape(1), 0, cell};
  shape.places = places;
  expect_spacing(places, shape.sequence);
  if (!place.is_none()) shape.sequence = read_whole(held, place, shape.sequence, shape.part);
  const Index b = shape.sequence.batch, i = shape.inputs, h = shape.hidden;
  const Index sums = cell.gates * h;
  const State<const T> initial = input_parts<T>("state", state, cell, {b, h});
  return {shape,
          id,
          from_step_0(shape, input<T>("x", x, callers_rows(shape, x, i)), i),
          initial.s,
          initial.c,
          input<T>("w_ih", held.get<"w_ih">(params), {sums, i}),
          input<T>("w_hh", w_hh, {sums, h}),
          optional_input<T>("b_ih", held.get<"b_ih">(params), {sums}),
          optional_input<T>("b_hh", held.get<"b_hh">(params), {sums})};
}

// What a Record has saved: one array, or None.
inline py::object saved_of(Held& held, py::handle record) {
  const auto saved = held.get<"saved">(record).cast<py::tuple>();
  return saved.empty() ? py::object(py::none()) : py::object(saved[0]);
}

// A Record, to be written or to be read.
template <class T>
Record<T> read_record(Held& held, const Problem<T>& p, py::handle record) {
  const auto all =
      output_parts<T>("history", held.get<"history">(record), p.cell, rows_of(p, {p.hidden}));
  const py::handle shown = held.get<"shown">(record);
  return {all.s, all.c,
          optional_output<T>("saved", saved_of(held, record), rows_of(p, {p.cell.saved, p.hidden})),
          optional_output<T>("shown", shown, callers_rows(p, shown, p.hidden))};
}

// That of a part: its states, and in front of them those before it, in a Place.
template <class T>
Record<const T> read_part(Held& held, const Problem<T>& p, py::handle place, py::handle record) {
  const Index first = p.sequence.batch, rows = first + rows_there(p);
  const auto states = input_parts<T>("states", held.get<"states">(place), p.cell, {rows, p.hidden});
  const T* const saved =
      optional_input<T>("saved", saved_of(held, record), rows_of(p, {p.cell.saved, p.hidden}));
  const auto behind = [&](const T* part) {
    return from_step_0(p, part ? part + first * p.hidden : part, p.hidden);
  };
  return {behind(states.s), behind(states.c), from_step_0(p, saved, p.cell.saved * p.hidden)};
}

template <class T>
Record<const T> read_only_record(Held& held, const Problem<T>& p, py::handle record) {
  const auto all =
      input_parts<T>("history", held.get<"history">(record), p.cell, rows_of(p, {p.hidden}));
  return {all.s, all.c,
          optional_input<T>("saved", saved_of(held, record), rows_of(p, {p.cell.saved, p.hidden}))};
}

// An Incoming.
template <class T>
StateGradients<T> read_incoming(Held& held, const Problem<T>& p, py::handle incoming) {
  const auto parts = py::cast<py::tuple>(held.get<"history">(incoming));
  if (static_cast<Index>(parts.size()) != p.cell.states) {
    throw py::value_error("history: expected as many arrays as the state has parts");
  }
  State<const T> dy{optional_input<T>("dy", parts[0], callers_rows(p, parts[0], p.hidden)),
                    nullptr};
  if (parts.size() > 1) dy.c = optional_input<T>("dc", parts[1], rows_of(p, {p.hidden}));
  dy = {from_step_0(p, dy.s, p.hidden), from_step_0(p, dy.c, p.hidden)};
  const py::handle state = held.get<"state">(incoming);
  if (state.is_none()) return {dy.s, dy.c, nullptr, nullptr, nullptr};
  const auto end = optional_parts<T>("dstate", state, p.cell, {p.sequence.batch, p.hidden});
  return {dy.s, dy.c, end.s, end.c, nullptr};
}

// What a Request wants of each row of the batch.
inline OfRows read_of_rows(py::handle per_row) {
  if (per_row.is_none()) return OfRows::sum;
  constexpr const char* kNames[] = {"gradient", "norm"};
  return id_of("per_row", kNames, per_row.cast<std::string>()) == 0 ? OfRows::each : OfRows::norm;
}

// A parameter's gradient, of a shape that `per_row` tells, or null for None.
template <class T>
T* read_gradient(const char* name, py::handle array, const Problem<T>& p, OfRows of_rows,
                 std::initializer_list<Index> shape) {
  const Index batch = p.sequence.batch;
  if (of_rows == OfRows::sum) return optional_output<T>(name, array, {{}, shape});
  return optional_output<T>(
      name, array, of_rows == OfRows::norm ? Dimensions{batch} : Dimensions({batch}, shape));
}

// A Grads that a Request leads to; what is None is not wanted. Of the readout there is nothing yet.
template <class T>
Gradients<T> read_gradients(Held& held, const Problem<T>& p, py::handle request, py::handle grads) {
  const Index sums = p.cell.gates * p.hidden;
  const OfRows of_rows = read_of_rows(held.get<"per_row">(request));
  const auto of = [&](const char* name, py::handle array, std::initializer_list<Index> shape) {
    return read_gradient<T>(name, array, p, of_rows, shape);
  };
  auto state = py::reinterpret_borrow<py::object>(held.get<"state">(grads));
  State<T> initial{};
  if (!state.is_none()) {
    if (p.cell.states == 1) state = py::make_tuple(state);
    initial = output_parts<T>("dstate", state, p.cell, {p.sequence.batch, p.hidden});
  }
  const py::handle dx = held.get<"x">(grads);
  T* const x = optional_output<T>("x", dx, callers_rows(p, dx, p.inputs));
  return {from_step_0(p, x, p.inputs),
          initial.s,
          initial.c,
          of("w_ih", held.get<"w_ih">(grads), {sums, p.inputs}),
          of("w_hh", held.get<"w_hh">(grads), {sums, p.hidden}),
          of("b_ih", held.get<"b_ih">(grads), {sums}),
          of("b_hh", held.get<"b_hh">(grads), {sums}),
          nullptr,
          nullptr,
          held.get<"accumulate">(request).cast<bool>() ? Write::add : Write::overwrite,
          of_rows};
}

// The same of the readout.
template <class T>
void read_readout(Held& held, const Problem<T>& p, Index outputs, py::handle grads,
                  Gradients<T>& into) {
  into.w_ho =
      read_gradient<T>("w_ho", held.get<"w_ho">(grads), p, into.of_rows, {outputs, p.hidden});
  into.b_o = read_gradient<T>("b_o", held.get<"b_o">(grads), p, into.of_rows, {outputs});
}

// Of a Request, how time is cut.
inline Cut read_cut(Held& held, py::handle request) {
  const py::handle budget = held.get<"budget">(request);
  const Cut cut{held.get<"segment_steps">(budget).cast<Index>(),
                held.get<"group_segments">(budget).cast<Index>()};
  if (cut.segment_steps < 0 || cut.group_segments < 0) {
    throw py::value_error("segments: negative size");
  }
  return cut;
}

// What a Request says of the way of a gradient.
template <class T>
Route read_route(Held& held, const Problem<T>& p, const Record<const T>& record,
                 py::handle request) {
  static constexpr const char* kNames[] = {"whole", "direct"};
  const auto name = held.get<"route">(request).template cast<std::string>();
  const Route route = static_cast<Route>(id_of("route", kNames, name));
  if (route == Route::direct && p.cell.gated() && !record.saved) {
    throw py::value_error("route: the direct one needs the gates");
  }
  return route;
}

// A Trace, or None.
template <class T>
Trace<T> read_trace(Held& held, const Problem<T>& p, py::handle trace) {
  if (trace.is_none()) return {};
  const auto states =
      output_parts<T>("dstates", held.get<"dstates">(trace), p.cell, rows_of(p, {p.hidden}));
  return {optional_output<T>("deltas", held.get<"deltas">(trace),
                             planes_of(p.cell.deltas(), p, p.hidden)),
          states.s, states.c};
}

// An Objective, and the readout of the parameters. Its target is one step's, (B, ...), or every
// step's, (T, B, ...).
template <class T>
Objective<T> read_objective(Held& held, const Problem<T>& p, py::handle params,
                            py::handle objective) {
  const auto w_ho = array_of("w_ho", held.get<"w_ho">(params));
  if (w_ho.ndim() != 2) throw py::value_error("w_ho: unexpected rank");
  const Index outputs = w_ho.shape(0);
  const py::handle step = held.get<"step">(objective), target = held.get<"target">(objective);
  const bool one_step = !step.is_none();
  const Index at = one_step ? step.cast<Index>() : -1;
  if (one_step && (at < 0 || at >= p.sequence.steps || !p.sequence.dense()))
    throw py::value_error("step: out of range");
  Objective<T> o{
      static_cast<LossId>(
          id_of("loss", kLossNames, held.get<"loss">(objective).cast<std::string>())),
      outputs,
      input<T>("w_ho", w_ho, {outputs, p.hidden}),
      optional_input<T>("b_o", held.get<"b_o">(params), {outputs}),
      nullptr,
      nullptr,
      from_step_0(p, optional_input<T>("weights", held.get<"weights">(objective), rows_of(p, {})),
                  1),
      at,
      held.get<"scale">(objective).cast<double>()};
  if (o.loss == LossId::squared_error) {
    o.target = one_step
                   ? input<T>("target", target, {p.sequence.batch, outputs})
                   : from_step_0(p, input<T>("target", target, rows_of(p, {outputs})), outputs);
  } else {
    o.ids = one_step ? input<std::int64_t>("target", target, {p.sequence.batch})
                     : from_step_0(p, input<std::int64_t>("target", target, rows_of(p, {})), 1);
  }
  return o;
}

}  // namespace bptt
