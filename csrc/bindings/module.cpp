// The Python module `bptt._core`: names to ids, arrays to pointers, GIL released, Ctrl-C heard.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <pthread.h>

#include <atomic>
#include <exception>
#include <iterator>
#include <optional>
#include <type_traits>

#include "bindings/arrays.h"
#include "dispatch/dispatch.h"
#include "engine/engine.h"
#include "engine/float_environment.h"
#include "engine/lag_products.h"
#include "engine/peak.h"

namespace bptt {
namespace {

template <int N>
int id_of(const char* what, const char* const (&names)[N], const std::string& name) {
  for (int id = 0; id < N; ++id) {
    if (name == names[id]) return id;
  }
  throw py::value_error(std::string(what) + ": unknown name '" + name + "'");
}

CellId cell_of(const std::string& name) {
  if (const auto id = find_cell(name)) return *id;
  throw py::value_error("cell: unknown name '" + name + "'");
}

// The thread that runs signal handlers. A forked child has one thread, and that is it.
std::atomic<unsigned long> main_thread{0};

void remember_main_thread() {
  const py::object thread = py::module_::import("threading").attr("main_thread")();
  main_thread = thread.attr("ident").cast<unsigned long>();
  pthread_atfork(nullptr, nullptr, [] { main_thread = PyThread_get_thread_ident(); });
}

// Whether a signal handler raised an exception (KeyboardInterrupt, usually). Other threads never
// take the GIL here: while the interpreter ends, that would unwind them in the midst of the engine.
bool signal_raised() {
  if (PyThread_get_thread_ident() != main_thread) return false;
  py::gil_scoped_acquire gil;
  return PyErr_CheckSignals() != 0;
}

// Calls f() without the GIL. Taking it back may unwind this thread, if the interpreter ends
// meanwhile; pybind11's own guard would do it in a destructor, which ends the process.
template <class F>
void without_gil(F&& f) {
  PyThreadState* const state = PyEval_SaveThread();
  std::exception_ptr error;
  try {
    f();
  } catch (...) {
    error = std::current_exception();
  }
  PyEval_RestoreThread(state);
  if (error) std::rethrow_exception(error);
}

// Runs f(interrupt) without the GIL; raises what a signal handler raised meanwhile.
template <class F>
void run_interruptibly(F&& f) {
  Interrupt interrupt(signal_raised);
  without_gil([&] { f(interrupt); });
  if (interrupt.stopped()) throw py::error_already_set();
}

using Dimensions = std::initializer_list<Index>;

// The parts of a state, or of what belongs to each: as many arrays as the cell's state has.
template <class T, class Read>
State<T> read_parts(const char* name, const py::tuple& parts, const CellShape& cell, Read read) {
  if (static_cast<Index>(parts.size()) != cell.states) {
    throw py::value_error(std::string(name) + ": expected as many arrays as the state has parts");
  }
  return {read(name, parts[0]), parts.size() > 1 ? read(name, parts[1]) : nullptr};
}

template <class T>
State<const T> input_parts(const char* name, const py::tuple& parts, const CellShape& cell,
                           Dimensions d) {
  return read_parts<const T>(name, parts, cell,
                             [&](auto what, py::handle array) { return input<T>(what, array, d); });
}

template <class T>
State<const T> optional_parts(const char* name, const py::tuple& parts, const CellShape& cell,
                              Dimensions d) {
  return read_parts<const T>(name, parts, cell, [&](auto what, py::handle array) {
    return optional_input<T>(what, array, d);
  });
}

template <class T>
State<T> output_parts(const char* name, const py::tuple& parts, const CellShape& cell,
                      Dimensions d) {
  return read_parts<T>(name, parts, cell,
                       [&](auto what, py::handle array) { return output<T>(what, array, d); });
}

template <class T>
Problem<T> read_problem(const std::string& name, const py::array& x, const py::tuple& state,
                        const py::array& w_ih, const py::array& w_hh, py::handle b_ih,
                        py::handle b_hh) {
  const CellId cell = cell_of(name);
  if (x.ndim() != 3 || w_hh.ndim() != 2) throw py::value_error("x, w_hh: unexpected rank");
  const Index t = x.shape(0), b = x.shape(1), i = x.shape(2), h = w_hh.shape(1);
  const Index sums = shape_of(cell).gates * h;
  const State<const T> initial = input_parts<T>("state", state, shape_of(cell), {b, h});
  return {{{t, b}, i, h, 0, shape_of(cell)},
          cell,
          input<T>("x", x, {t, b, i}),
          initial.s,
          initial.c,
          input<T>("w_ih", w_ih, {sums, i}),
          input<T>("w_hh", w_hh, {sums, h}),
          optional_input<T>("b_ih", b_ih, {sums}),
          optional_input<T>("b_hh", b_hh, {sums})};
}

template <class T>
Gradients<T> read_gradients(const Problem<T>& p, bool accumulate, py::handle dx,
                            const py::tuple& dstate, py::handle w_ih, py::handle w_hh,
                            py::handle b_ih, py::handle b_hh) {
  const Index sums = p.cell.gates * p.hidden;
  const State<T> initial = output_parts<T>("dstate", dstate, p.cell, {p.sequence.batch, p.hidden});
  return {optional_output<T>("dx", dx, {p.sequence.steps, p.sequence.batch, p.inputs}),
          initial.s,
          initial.c,
          optional_output<T>("dw_ih", w_ih, {sums, p.inputs}),
          optional_output<T>("dw_hh", w_hh, {sums, p.hidden}),
          optional_output<T>("db_ih", b_ih, {sums}),
          optional_output<T>("db_hh", b_hh, {sums}),
          nullptr,
          nullptr,
          accumulate ? Write::add : Write::overwrite};
}

void py_forward(const std::string& cell, int threads, bool flush, const py::array& x,
                const py::tuple& state, const py::array& w_ih, const py::array& w_hh,
                py::handle b_ih, py::handle b_hh, const py::tuple& history, const py::tuple& last,
                py::handle saved) {
  with_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const auto p = read_problem<T>(cell, x, state, w_ih, w_hh, b_ih, b_hh);
    const auto all =
        output_parts<T>("history", history, p.cell, {p.sequence.steps, p.sequence.batch, p.hidden});
    const auto end = output_parts<T>("last", last, p.cell, {p.sequence.batch, p.hidden});
    const Record<T> record{
        all.s, all.c,
        optional_output<T>("saved", saved,
                           {p.sequence.steps, p.sequence.batch, p.cell.saved, p.hidden})};
    run_interruptibly(
        [&](Interrupt& interrupt) { forward(p, record, end, {threads, flush}, interrupt); });
  });
}

// `saved` is None where it is to be computed again; `dhistory` may have None for an array, and so
// may the gradients for what is not wanted.
void py_backward(const std::string& cell, int threads, bool flush, const py::array& x,
                 const py::tuple& state, const py::array& w_ih, const py::array& w_hh,
                 py::handle b_ih, py::handle b_hh, const py::tuple& history, py::handle saved,
                 const py::tuple& dhistory, const std::optional<py::tuple>& dstate, bool accumulate,
                 py::handle dx, const py::tuple& dstate_out, py::handle dw_ih, py::handle dw_hh,
                 py::handle db_ih, py::handle db_hh, py::handle deltas,
                 const std::optional<py::tuple>& dstates) {
  with_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const auto p = read_problem<T>(cell, x, state, w_ih, w_hh, b_ih, b_hh);
    const auto gradients =
        read_gradients(p, accumulate, dx, dstate_out, dw_ih, dw_hh, db_ih, db_hh);
    Trace<T> trace;
    trace.deltas = optional_output<T>(
        "deltas", deltas, {p.cell.deltas(), p.sequence.steps, p.sequence.batch, p.hidden});
    if (dstates) {
      const auto every = output_parts<T>("dstates", *dstates, p.cell,
                                         {p.sequence.steps, p.sequence.batch, p.hidden});
      trace.dstates = every.s;
      trace.dmemories = every.c;
    }
    const auto all =
        input_parts<T>("history", history, p.cell, {p.sequence.steps, p.sequence.batch, p.hidden});
    const Record<const T> record{
        all.s, all.c,
        optional_input<T>("saved", saved,
                          {p.sequence.steps, p.sequence.batch, p.cell.saved, p.hidden})};
    const auto dy = optional_parts<T>("dhistory", dhistory, p.cell,
                                      {p.sequence.steps, p.sequence.batch, p.hidden});
    const auto end = dstate
                         ? input_parts<T>("dstate", *dstate, p.cell, {p.sequence.batch, p.hidden})
                         : State<const T>{};
    run_interruptibly([&](Interrupt& interrupt) {
      backward(p, record, {dy.s, dy.c, end.s, end.c, nullptr}, gradients, trace, {threads, flush},
               interrupt);
    });
  });
}

// Reads the target of one step's loss, (B, ...), or of every step's, (T, B, ...).
template <class T>
Objective<T> read_objective(const Problem<T>& p, const py::array& w_ho, py::handle b_o,
                            const std::string& loss, py::handle target, py::handle step,
                            py::handle weights, double scale) {
  if (w_ho.ndim() != 2) throw py::value_error("w_ho: unexpected rank");
  const Index outputs = w_ho.shape(0);
  const Index at = step.is_none() ? -1 : step.cast<Index>();
  if (!step.is_none() && (at < 0 || at >= p.sequence.steps))
    throw py::value_error("step: out of range");
  Objective<T> o{static_cast<LossId>(id_of("loss", kLossNames, loss)),
                 outputs,
                 input<T>("w_ho", w_ho, {outputs, p.hidden}),
                 optional_input<T>("b_o", b_o, {outputs}),
                 nullptr,
                 nullptr,
                 optional_input<T>("weights", weights, {p.sequence.steps, p.sequence.batch}),
                 at,
                 scale};
  const bool one_step = at >= 0;
  if (o.loss == LossId::squared_error) {
    o.target = one_step ? input<T>("target", target, {p.sequence.batch, outputs})
                        : input<T>("target", target, {p.sequence.steps, p.sequence.batch, outputs});
  } else {
    o.ids = one_step ? input<std::int64_t>("target", target, {p.sequence.batch})
                     : input<std::int64_t>("target", target, {p.sequence.steps, p.sequence.batch});
  }
  return o;
}

// `last` is None, or where the state goes after the last step that is computed.
double py_value_and_grad(const std::string& cell, int threads, bool flush, const py::array& x,
                         const py::tuple& state, const py::array& w_ih, const py::array& w_hh,
                         py::handle b_ih, py::handle b_hh, const py::array& w_ho, py::handle b_o,
                         const std::string& loss, py::handle target, py::handle step,
                         py::handle weights, double scale, bool accumulate,
                         const std::optional<py::tuple>& last, py::handle dx,
                         const py::tuple& dstate, py::handle dw_ih, py::handle dw_hh,
                         py::handle db_ih, py::handle db_hh, py::handle dw_ho, py::handle db_o) {
  return with_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const auto p = read_problem<T>(cell, x, state, w_ih, w_hh, b_ih, b_hh);
    const auto objective = read_objective(p, w_ho, b_o, loss, target, step, weights, scale);
    auto gradients = read_gradients(p, accumulate, dx, dstate, dw_ih, dw_hh, db_ih, db_hh);
    gradients.w_ho = output<T>("dw_ho", dw_ho, {objective.outputs, p.hidden});
    gradients.b_o = optional_output<T>("db_o", db_o, {objective.outputs});
    const auto end =
        last ? output_parts<T>("last", *last, p.cell, {p.sequence.batch, p.hidden}) : State<T>{};
    double value = 0;
    run_interruptibly([&](Interrupt& interrupt) {
      value = value_and_grad(p, objective, gradients, end, {threads, flush}, interrupt);
    });
    return value;
  });
}

// (lags, parameters, scalar products); a total that is None is left out, and so is its sum.
py::array py_lag_products(const std::string& cell, int threads, bool flush, const py::array& x,
                          const py::tuple& state, const py::array& w_ih, const py::array& w_hh,
                          const py::array& y, const py::array& deltas, const py::tuple& totals,
                          const py::tuple& added,
                          const py::array_t<std::int64_t, py::array::c_style>& lags) {
  return with_dtype(x, [&](auto zero) -> py::array {
    using T = decltype(zero);
    const auto p = read_problem<T>(cell, x, state, w_ih, w_hh, py::none(), py::none());
    const CellShape shape = p.cell;
    const Index sums = shape.gates * p.hidden;
    if (totals.size() != kLayerParams || added.size() != kLayerParams) {
      throw py::value_error("totals, sums: unexpected length");
    }
    for (py::ssize_t i = 0; i < lags.size(); ++i) {
      const Index lag = lags.data()[i];
      if (lag < (i ? lags.data()[i - 1] + 1 : 0) || lag >= p.sequence.steps) {
        throw py::value_error("lags: out of range or order");
      }
    }
    py::array_t<double> products(
        {lags.size(), py::ssize_t{kLayerParams}, py::ssize_t{kScalarProducts}});
    const LagProducts<T> asked{
        input<T>("y", y, {p.sequence.steps, p.sequence.batch, p.hidden}),
        input<T>("deltas", deltas, {shape.deltas(), p.sequence.steps, p.sequence.batch, p.hidden}),
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

// An elementary function of the active kernels over a dense array, for tests of its accuracy.
template <class Choose>
py::array map_array(const py::array& x, bool flush, Choose choose) {
  return with_dtype(x, [&](auto zero) -> py::array {
    using T = decltype(zero);
    py::array_t<T> y(x.size());
    const T* data = input<T>("x", x, {x.size()});
    const FloatEnvironment environment(flush ? kFlushSubnormals : kKeepSubnormals);
    choose(kernel_table().of<T>())(data, y.mutable_data(), x.size());
    return y;
  });
}

// The forecast as plain numbers; python/bptt/plan.py names them.
py::dict py_forecast(const std::string& cell, Index steps, Index batch, Index inputs, Index hidden,
                     Index outputs, const std::string& dtype, int threads) {
  const CellId id = cell_of(cell);
  if (dtype != "float32" && dtype != "float64") throw py::value_error("dtype: unknown " + dtype);
  const Shape shape{{steps, batch}, inputs, hidden, outputs, shape_of(id)};
  const Forecast f = dtype == "float32" ? forecast<float>(id, shape, threads)
                                        : forecast<double>(id, shape, threads);
  const Plan& p = f.plan;
  using namespace py::literals;
  return py::dict("threads"_a = p.threads, "split"_a = kSplitNames[static_cast<int>(p.split)],
                  "block_steps"_a = p.block_steps, "sum_steps"_a = p.sum_steps,
                  "project_first"_a = p.project_first, "flops"_a = f.flops, "nbytes"_a = f.bytes,
                  "scratch_nbytes"_a = f.scratch_bytes, "recurrence"_a = p.cost.recurrence,
                  "products"_a = p.cost.products, "exchange"_a = p.cost.exchange,
                  "total"_a = p.cost.total,
                  "peak"_a = this_machine().flops * 4 / (dtype == "float32" ? 4 : 8),
                  "memory_rate"_a = this_machine().memory_rate);
}

double py_fma_peak(const std::string& dtype, int threads) {
  if (dtype != "float32" && dtype != "float64") throw py::value_error("dtype: unknown " + dtype);
  double peak = 0;
  without_gil(
      [&] { peak = dtype == "float32" ? fma_peak<float>(threads) : fma_peak<double>(threads); });
  return peak;
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
  m.def("fma_peak", py_fma_peak, py::arg("dtype"), py::arg("threads"),
        "Peak rate of fused multiply-adds in GF/s, measured for about 50 ms.");
  m.def("forecast", py_forecast, "How a call would be done, and what it takes.");
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
  m.def("lag_products", py_lag_products);
  m.def("value_and_grad", py_value_and_grad);
}

}  // namespace bptt
