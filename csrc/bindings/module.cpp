// The Python module `bptt._core`: names to ids, arrays to pointers, GIL released, Ctrl-C heard.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <type_traits>
#include <vector>

#include "bindings/defaults.h"
#include "bindings/interruptible.h"
#include "bindings/requests.h"
#include "bindings/stepper.h"
#include "bindings/tensors.h"
#include "bindings/xla.h"
#include "engine/float_environment.h"
#include "engine/row_copies.h"
#include "engine/team.h"
#include "engine/yardsticks.h"

namespace bptt {
namespace {

// What the parts of a pass hand on, of either dtype.
class AnyCarried {
 public:
  template <class T>
  Carried<T>& of() {
    if constexpr (sizeof(T) == sizeof(float)) {
      return f32_;
    } else {
      return f64_;
    }
  }

 private:
  Carried<float> f32_;
  Carried<double> f64_;
};

// `record` is written.
void py_forward(int threads, bool flush, py::handle layer, py::handle record) {
  with_dtype_of(layer, [&](auto zero) {
    using T = decltype(zero);
    Held held;
    const auto p = read_layer<T>(held, layer);
    const auto written = read_record(held, p, record);
    const auto end =
        output_parts<T>("last", held.get<"state">(record), p.cell, {p.sequence.batch, p.hidden});
    run_interruptibly(
        [&](Interrupt& interrupt) { forward(p, written, end, {threads, flush}, interrupt); });
  });
}

// `grads` is where the request's gradients go.
void py_backward(int threads, bool flush, py::handle layer, py::handle record, py::handle incoming,
                 py::handle request, py::handle grads) {
  with_dtype_of(layer, [&](auto zero) {
    using T = decltype(zero);
    Held held;
    const auto p = read_layer<T>(held, layer);
    const auto read = read_only_record(held, p, record);
    auto given = read_incoming(held, p, incoming);
    given.route = read_route(held, p, read, request);
    const auto gradients = read_gradients(held, p, request, grads);
    const auto trace = read_trace(held, p, held.get<"trace">(request));
    run_interruptibly([&](Interrupt& interrupt) {
      backward(p, read, given, gradients, trace, {threads, flush}, interrupt);
    });
  });
}

// Of a layer that is a part of a longer one, at a Place. `objective` may be None; returns the loss
// of the parts so far.
double py_backward_part(int threads, bool flush, py::handle layer, py::handle place,
                        py::handle record, py::handle incoming, py::handle objective,
                        py::handle request, py::handle grads, AnyCarried& any) {
  return with_dtype_of(layer, [&](auto zero) {
    using T = decltype(zero);
    Held held;
    const auto p = read_layer<T>(held, layer, place);
    const auto read = read_part(held, p, place, record);
    auto given = read_incoming(held, p, incoming);
    auto gradients = read_gradients(held, p, request, grads);
    std::optional<Objective<T>> loss;
    if (!objective.is_none()) {
      loss = read_objective(held, p, held.get<"params">(layer), objective);
      given.objective = &*loss;
      read_readout(held, p, loss->outputs, grads, gradients);
    }
    Carried<T>& carried = any.of<T>();
    double value = 0;
    run_interruptibly([&](Interrupt& interrupt) {
      value = backward_part(p, read, given, gradients, carried, {threads, flush}, interrupt);
    });
    return value;
  });
}

// `last` is None, or where the state goes after the last step that is computed.
double py_value_and_grad(int threads, bool flush, py::handle layer, py::handle objective,
                         py::handle request, py::handle grads, py::handle last) {
  return with_dtype_of(layer, [&](auto zero) {
    using T = decltype(zero);
    Held held;
    const auto p = read_layer<T>(held, layer);
    const auto read = read_objective(held, p, held.get<"params">(layer), objective);
    auto gradients = read_gradients(held, p, request, grads);
    read_readout(held, p, read.outputs, grads, gradients);
    const auto end = last.is_none()
                         ? State<T>{}
                         : output_parts<T>("last", last, p.cell, {p.sequence.batch, p.hidden});
    const Cut cut = read_cut(held, request);
    double value = 0;
    run_interruptibly([&](Interrupt& interrupt) {
      value = value_and_grad(p, read, gradients, end, cut, {threads, flush}, interrupt);
    });
    return value;
  });
}

// The outputs `o` (N, O) of states y (N, H).
void py_read_out(int threads, bool flush, py::handle params, const py::array& y,
                 const py::array& o) {
  with_dtype(y, [&](auto zero) {
    using T = decltype(zero);
    Held held;
    const auto w_ho = array_of("w_ho", held.get<"w_ho">(params));
    if (y.ndim() != 2 || w_ho.ndim() != 2) throw py::value_error("y, w_ho: unexpected rank");
    const Index rows = y.shape(0), hidden = y.shape(1), outputs = w_ho.shape(0);
    const Outputs<T> asked{rows,
                           hidden,
                           outputs,
                           input<T>("y", y, {rows, hidden}),
                           input<T>("w_ho", w_ho, {outputs, hidden}),
                           optional_input<T>("b_o", held.get<"b_o">(params), {outputs}),
                           output<T>("o", o, {rows, outputs})};
    run_interruptibly([&](Interrupt& interrupt) { read_out(asked, {threads, flush}, interrupt); });
  });
}

// `dy` (T, B, H), or (B, H) of a loss at one step, `w_ho` and `b_o` are written.
double py_readout_gradient(int threads, bool flush, py::handle layer, py::handle y,
                           py::handle objective, py::handle dy, py::handle w_ho, py::handle b_o) {
  return with_dtype_of(layer, [&](auto zero) {
    using T = decltype(zero);
    Held held;
    const auto p = read_layer<T>(held, layer);
    const auto read = read_objective(held, p, held.get<"params">(layer), objective);
    const Dimensions all = rows_of(p, {p.hidden});
    const T* const states = input<T>("y", y, all);
    const ReadoutGradients<T> gradients{
        output<T>("dy", dy, read.step < 0 ? all : Dimensions{p.sequence.batch, p.hidden}),
        output<T>("w_ho", w_ho, {read.outputs, p.hidden}),
        optional_output<T>("b_o", b_o, {read.outputs})};
    double value = 0;
    run_interruptibly([&](Interrupt& interrupt) {
      value = readout_gradient(p, states, read, gradients, {threads, flush}, interrupt);
    });
    return value;
  });
}

// (lags, parameters, scalar products); a total that is None is left out, and so is its sum.
py::array py_lag_products(int threads, bool flush, py::handle layer, py::handle y,
                          py::handle deltas, const py::tuple& totals, const py::tuple& added,
                          const py::array_t<std::int64_t, py::array::c_style>& lags) {
  return with_dtype_of(layer, [&](auto zero) -> py::array {
    using T = decltype(zero);
    Held held;
    const auto p = read_layer<T>(held, layer);
    if (!p.sequence.dense()) throw py::value_error("offsets: lag products take a dense batch");
    const Index steps = p.sequence.steps, batch = p.sequence.batch;
    const Index sums = p.cell.gates * p.hidden;
    if (totals.size() != kLayerParams || added.size() != kLayerParams) {
      throw py::value_error("totals, sums: unexpected length");
    }
    for (py::ssize_t i = 0; i < lags.size(); ++i) {
      const Index lag = lags.data()[i];
      if (lag < (i ? lags.data()[i - 1] + 1 : 0) || lag >= steps) {
        throw py::value_error("lags: out of range or order");
      }
    }
    py::array_t<double> products(
        {lags.size(), py::ssize_t{kLayerParams}, py::ssize_t{kScalarProducts}});
    const LagProducts<T> asked{
        input<T>("y", y, {steps, batch, p.hidden}),
        input<T>("deltas", deltas, {p.cell.deltas(), steps, batch, p.hidden}),
        {input<T>("totals[0]", totals[0], {sums, p.inputs}),
         input<T>("totals[1]", totals[1], {sums, p.hidden}),
         optional_input<T>("totals[2]", totals[2], {sums}),
         optional_input<T>("totals[3]", totals[3], {sums})},
        lags.data(),
        lags.size(),
        {output<T>("sums[0]", added[0], {sums, p.inputs}),
         output<T>("sums[1]", added[1], {sums, p.hidden}),
         optional_output<T>("sums[2]", added[2], {sums}),
         optional_output<T>("sums[3]", added[3], {sums})},
        products.mutable_data()};
    run_interruptibly(
        [&](Interrupt& interrupt) { lag_products(p, asked, {threads, flush}, interrupt); });
    return products;
  });
}

// Rows of `many`, of any dtype, that an index names, and the array which has one for each entry.
struct IndexedRows {
  const Index* index;
  Index count, row_bytes;
};

// `least` is the smallest index that may be.
IndexedRows indexed_rows(const py::array& many, const py::array& index, const py::array& few,
                         Index least) {
  const bool dense = (many.flags() & few.flags() & py::array::c_style) != 0;
  if (!dense || many.ndim() < 1 || few.ndim() != many.ndim() || index.ndim() != 1 ||
      many.itemsize() != few.itemsize() || few.shape(0) != index.shape(0)) {
    throw py::value_error("rows: unexpected layout");
  }
  Index row_bytes = many.itemsize();
  for (py::ssize_t axis = 1; axis < many.ndim(); ++axis) {
    if (many.shape(axis) != few.shape(axis)) throw py::value_error("rows: unexpected shape");
    row_bytes *= many.shape(axis);
  }
  const Index count = index.shape(0), most = many.shape(0);
  const Index* const begin = input<Index>("index", index, {count});
  const auto outside = [=](Index i) { return i < least || i >= most; };
  if (std::any_of(begin, begin + count, outside)) throw py::index_error("index: out of range");
  return {begin, count, row_bytes};
}

void py_take_rows(int threads, bool flush, const py::array& rows, const py::array& index,
                  py::array& out) {
  const IndexedRows asked = indexed_rows(rows, index, out, -1);
  const auto* from = static_cast<const std::byte*>(rows.data());
  auto* const to = static_cast<std::byte*>(out.mutable_data());
  without_gil(
      [&] { take_rows(from, asked.index, asked.count, asked.row_bytes, to, {threads, flush}); });
}

void py_put_rows(int threads, bool flush, const py::array& rows, const py::array& index,
                 py::array& out) {
  const IndexedRows asked = indexed_rows(out, index, rows, 0);
  const auto* from = static_cast<const std::byte*>(rows.data());
  auto* const to = static_cast<std::byte*>(out.mutable_data());
  without_gil(
      [&] { put_rows(from, asked.index, asked.count, asked.row_bytes, to, {threads, flush}); });
}

// Memory of another library as an array, without a copy: dense, and kept by `owner`.
py::array py_array_at(std::uintptr_t address, const py::tuple& shape, bool wide,
                      const py::object& owner) {
  std::vector<py::ssize_t> sizes;
  for (const py::handle size : shape) sizes.push_back(size.cast<py::ssize_t>());
  const py::dtype dtype = wide ? py::dtype::of<double>() : py::dtype::of<float>();
  return py::array(dtype, sizes, reinterpret_cast<const void*>(address), owner);
}

// An elementary function of the active kernels over a dense array, for tests of its accuracy.
template <class Choose>
py::array map_array(const py::array& x, bool flush, Choose choose) {
  return with_dtype(x, [&](auto zero) -> py::array {
    using T = decltype(zero);
    py::array_t<T> y(x.size());
    const T* data = input<T>("x", x, {x.size()});
    const FloatEnvironment environment(Execution{1, flush}.float_control());
    choose(kernel_table().of<T>())(data, y.mutable_data(), x.size());
    return y;
  });
}

// The forecast as plain numbers; python/bptt/plan.py names them.
py::dict py_forecast(const std::string& cell, Index steps, Index batch, Index inputs, Index hidden,
                     Index outputs, const std::string& dtype, int threads, Index segment_steps,
                     Index group_segments, py::handle offsets, Index part_steps, bool rows_apart,
                     bool moved) {
  const CellId id = cell_of(cell);
  if (dtype != "float32" && dtype != "float64") throw py::value_error("dtype: unknown " + dtype);
  Sequence sequence{steps, batch};
  if (!offsets.is_none()) sequence.offsets = input<Index>("offsets", offsets, {steps + 1});
  Shape shape{sequence, inputs, hidden, outputs, shape_of(id)};
  shape.rows_apart = rows_apart;
  const Index anywhere = 0;  // it is the scratch alone that counts
  if (moved) shape.places.rows = &anywhere;
  if (part_steps > 0) shape.part = {0, std::min(part_steps, steps)};
  const Cut cut{segment_steps, group_segments};
  const Forecast f = dtype == "float32" ? forecast<float>(id, shape, cut, threads)
                                        : forecast<double>(id, shape, cut, threads);
  const Plan& p = f.plan;
  const Machine machine = this_machine();
  using namespace py::literals;
  return py::dict("threads"_a = p.threads, "split"_a = kSplitNames[static_cast<int>(p.split)],
                  "block_steps"_a = p.block_steps, "sum_steps"_a = p.sum_steps,
                  "begins"_a = p.begins, "slices"_a = p.slices(),
                  "project_first"_a = p.project_first, "flops"_a = f.flops, "nbytes"_a = f.bytes,
                  "scratch_nbytes"_a = f.scratch_bytes, "recurrence"_a = p.cost.recurrence,
                  "products"_a = p.cost.products, "exchange"_a = p.cost.exchange,
                  "total"_a = p.cost.total, "machine"_a = machine.name,
                  "peak"_a = machine.flops * (dtype == "float32" ? 1 : 0.5),
                  "memory_rate"_a = machine.memory_rate);
}

// Seconds of forward and backward on a CPU that need not be this one.
double py_predict(const std::string& kind, Index vector_bytes, const std::string& cell, Index steps,
                  Index batch, Index inputs, Index hidden, Index item_size, int threads) {
  const Shape shape{{steps, batch}, inputs, hidden, 0, shape_of(cell_of(cell))};
  const Index panel = 4 * vector_bytes / item_size;  // four vectors in every table
  const Machine machine = machine_of_kind(kind, vector_bytes);
  return make_plan(shape, panel, item_size, threads, Passes::both, machine).cost.total;
}

// What `measure` of a zero of this type returns, without the GIL.
template <class F>
double measured(const std::string& dtype, F&& measure) {
  if (dtype != "float32" && dtype != "float64") throw py::value_error("dtype: unknown " + dtype);
  double found = 0;
  without_gil([&] { found = dtype == "float32" ? measure(float{}) : measure(double{}); });
  return found;
}

double py_fma_peak(const std::string& dtype, int threads, bool loads) {
  return measured(dtype, [=](auto zero) { return fma_peak<decltype(zero)>(threads, loads); });
}

// `columns` and `units` are whole vectors.
double py_product_seconds(const std::string& dtype, Index rows, Index k, Index columns, bool far,
                          Index calls) {
  return measured(dtype, [=](auto zero) {
    return product_seconds<decltype(zero)>(rows, k, columns, far, calls);
  });
}

double py_outer_seconds(const std::string& dtype, Index rows, Index units, Index columns,
                        Index calls) {
  return measured(
      dtype, [=](auto zero) { return outer_seconds<decltype(zero)>(rows, units, columns, calls); });
}

// Addresses of the functions of `OpenMp`, in its order.
void py_share_workers(std::uintptr_t parallel, std::uintptr_t thread, std::uintptr_t threads,
                      std::uintptr_t max_threads) {
  OpenMp runtime{};
  const auto point = [](auto& function, std::uintptr_t address) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(address);
  };
  point(runtime.parallel, parallel);
  point(runtime.thread, thread);
  point(runtime.threads, threads);
  point(runtime.max_threads, max_threads);
  share_workers(runtime);
}

}  // namespace

// What threadpoolctl knows this library by among all that are loaded.
extern "C" __attribute__((visibility("default"))) int bptt_core() { return 1; }

// Without the GIL calls may run at once, as they do with it, since they release it: what they share
// is the table of kernels, an atomic pointer, and the team, which one call has at a time.
PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  remember_main_thread();
  m.doc() = "Compiled kernels of bptt. Private: call them through the bptt package.";
  using namespace py::literals;
  py::dict cells;
  for (const Cell<float>& cell : registered_cells()) {
    const CellShape& shape = cell.shape;
    cells[cell.name] = py::dict("gates"_a = shape.gates, "states"_a = shape.states,
                                "saved"_a = shape.saved, "apart"_a = shape.apart);
  }
  m.attr("CELLS") = cells;
  m.def("compiler", [] { return BPTT_COMPILER; }, "What compiled this module.");
  m.def("isa", [] { return kernel_table().name; }, "Name of the instruction set in use.");
  m.def("isas", supported_isas, "Names of the instruction sets that this CPU runs, best first.");
  m.def("select_isa", select_isa, py::arg("name"), "Use another instruction set from now on.");
  m.def("lanes", [] { return kernel_table().f32.lanes; }, "float32 lanes of a vector in use.");
  m.def("fma_peak", py_fma_peak, py::arg("dtype"), py::arg("threads"), py::arg("loads") = false,
        "Peak rate of fused multiply-adds in GF/s, measured for 20 ms at most; with `loads` of a "
        "product's register tile, whose operands come from the first-level cache.");
  m.def("product_seconds", py_product_seconds, py::arg("dtype"), py::arg("rows"), py::arg("k"),
        py::arg("columns"), py::arg("far"), py::arg("calls"),
        "Seconds of a call of the leaf product, (rows, k) by (k, columns).");
  m.def("outer_seconds", py_outer_seconds, py::arg("dtype"), py::arg("rows"), py::arg("units"),
        py::arg("columns"), py::arg("calls"),
        "Seconds of a call of the leaf outer product, (rows, units) by (rows, columns).");
  m.def("forecast", py_forecast, py::arg("cell"), py::arg("steps"), py::arg("batch"),
        py::arg("inputs"), py::arg("hidden"), py::arg("outputs"), py::arg("dtype"),
        py::arg("threads"), py::arg("segment_steps") = 0, py::arg("group_segments") = 0,
        py::arg("offsets") = py::none(), py::arg("part_steps") = 0, py::arg("rows_apart") = false,
        py::arg("moved") = false, "How a call would be done, and what it takes.");
  m.def("predict", py_predict, py::arg("kind"), py::arg("vector_bytes"), py::arg("cell"),
        py::arg("steps"), py::arg("batch"), py::arg("inputs"), py::arg("hidden"),
        py::arg("item_size"), py::arg("threads"),
        "Seconds that a plan for a CPU of a known kind expects of forward and backward.");
  const auto publish = [&](const char* name, auto choose) {
    m.def(
        name, [choose](const py::array& x, bool flush) { return map_array(x, flush, choose); },
        py::arg("x"), py::arg("flush") = true);
  };
  publish("tanh", [](const auto& kernels) { return kernels.tanh; });
  publish("sigmoid", [](const auto& kernels) { return kernels.sigmoid; });
  publish("exp", [](const auto& kernels) { return kernels.exp; });
  m.def("forward", py_forward);
  m.def("backward", py_backward);
  py::class_<AnyCarried>(m, "Carried").def(py::init<>());
  m.def("backward_part", py_backward_part);
  m.def("lag_products", py_lag_products);
  m.def("array_at", py_array_at);
  m.def("share_workers", py_share_workers);
  m.def("take_rows", py_take_rows);
  m.def("put_rows", py_put_rows);
  m.def("value_and_grad", py_value_and_grad);
  publish_stepper(m);
  publish_tensors(m);
  m.def(
      "set_default_threads", [](int threads) { default_threads = threads; },
      "Of calls that are made without Python.");
  m.def(
      "set_default_flush_subnormals", [](bool flush) { default_flush_subnormals = flush; },
      "Of calls that are made without Python.");
  publish_xla(m);
  m.def("read_out", py_read_out);
  m.def("readout_gradient", py_readout_gradient);
}

}  // namespace bptt
