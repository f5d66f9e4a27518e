#include "bindings/stepper.h"

#include <atomic>
#include <memory>
#include <optional>
#include <stdexcept>

#include "bindings/interruptible.h"
#include "bindings/requests.h"
#include "engine/stepper.h"

namespace bptt {
namespace {

// Up to so much work, counting as much again for the calls of a step as 1000 flops take, the GIL is
// kept: it takes about as long as another thread needs to begin, which would then keep it.
constexpr Index kFlopsWithGil = 1'000'000, kFlopsOfCalls = 1000;
// Most bytes of a new array that are asked for without a look at what memory there is.
constexpr Index kAlwaysGranted = Index{1} << 28;

// The right of one call to use a stepper.
class Turn {
 public:
  explicit Turn(std::atomic<bool>& taken) : taken_(taken) {
    if (taken.exchange(true, std::memory_order_acquire)) {
      throw std::runtime_error(
          "Stepper: another call of it is running; each thread needs a stepper of its own");
    }
  }
  ~Turn() { taken_.store(false, std::memory_order_release); }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  std::atomic<bool>& taken_;
};

// A stepper of either dtype.
class AnyStepper {
 public:
  virtual ~AnyStepper() = default;
  virtual py::object run(int threads, py::handle x, py::handle out) = 0;
  virtual py::tuple state() = 0;
  virtual void assign(const py::array_t<Index, py::array::c_style>& rows, py::handle state) = 0;
  virtual Index nbytes() const = 0;
};

// A plain array as it lies: no subclass, which may mean something else by its values.
template <class T>
std::optional<py::array> dense(py::handle value) {
  const auto* const ndarray = reinterpret_cast<PyObject*>(py::detail::npy_api::get().PyArray_Type_);
  if (reinterpret_cast<PyObject*>(Py_TYPE(value.ptr())) != ndarray) return {};
  if (!py::isinstance<py::array_t<T, py::array::c_style>>(value)) return {};
  auto array = py::reinterpret_borrow<py::array>(value);
  if (reinterpret_cast<std::uintptr_t>(array.data()) % alignof(T) != 0) return {};
  return array;
}

template <class T>
class StepperOf : public AnyStepper {
 public:
  StepperOf(bool flush, const Problem<T>& layer) : stepper_(layer, flush) {}

  py::object run(int threads, py::handle x, py::handle out) override {
    const auto read = dense<T>(x);
    if (!read) return py::none();
    const std::optional<Index> steps = steps_of(*read);
    if (!steps) return py::none();
    const std::optional<py::array> y = written(*read, *steps, out);
    if (!y) return py::none();
    run(threads, static_cast<const T*>(read->data()), *steps,
        static_cast<T*>(const_cast<void*>(y->data())));
    return *y;
  }

  py::tuple state() override {
    const Turn turn(taken_);
    const Shape& s = stepper_.shape();
    const auto copy = [&](const T* part) {
      py::array_t<T> array({s.sequence.batch, s.hidden});
      std::copy_n(part, array.size(), array.mutable_data());
      return array;
    };
    const State<const T> state = stepper_.state();
    if (!state.c) return py::make_tuple(copy(state.s));
    return py::make_tuple(copy(state.s), copy(state.c));
  }

  void assign(const py::array_t<Index, py::array::c_style>& rows, py::handle state) override {
    const Shape& s = stepper_.shape();
    if (rows.ndim() != 1) throw py::value_error("rows: unexpected shape");
    for (Index i = 0; i < rows.size(); ++i) {
      if (rows.data()[i] < 0 || rows.data()[i] >= s.sequence.batch) {
        throw py::value_error("rows: out of range");
      }
    }
    State<const T> given{};
    if (!state.is_none()) given = input_parts<T>("state", state, s.cell, {rows.size(), s.hidden});
    const Turn turn(taken_);
    for (Index i = 0; i < rows.size(); ++i) stepper_.assign(rows.data()[i], given, i);
  }

  Index nbytes() const override { return stepper_.nbytes(); }

 private:
  // Of x (B, I) or (T, B, I); none if it has another shape.
  std::optional<Index> steps_of(const py::array& x) const {
    const Shape& s = stepper_.shape();
    const py::ssize_t rank = x.ndim();
    if (rank != 2 && rank != 3) return {};
    const py::ssize_t* const shape = x.shape() + (rank - 2);
    if (shape[0] != s.sequence.batch || shape[1] != s.inputs) return {};
    return rank == 3 ? x.shape(0) : 1;
  }

  // Where y goes, apart from x: a new array, or `out` if that fits; none if there cannot be one.
  std::optional<py::array> written(const py::array& x, Index steps, py::handle out) const {
    const Shape& s = stepper_.shape();
    const Index batch = s.sequence.batch, size = steps * batch * s.hidden;
    const auto bytes = size * static_cast<Index>(sizeof(T));
    if (out.is_none()) {
      if (bytes > kAlwaysGranted) return {};
      if (x.ndim() == 2) return py::array_t<T>({batch, s.hidden});
      return py::array_t<T>({steps, batch, s.hidden});
    }
    const auto y = dense<T>(out);
    if (!y || !y->writeable() || y->ndim() != x.ndim() || y->size() != size) return {};
    for (py::ssize_t axis = 0; axis + 1 < x.ndim(); ++axis) {
      if (y->shape(axis) != x.shape(axis)) return {};
    }
    const auto begin = [](const py::array& a) {
      return reinterpret_cast<std::uintptr_t>(a.data());
    };
    const auto end = [&](const py::array& a) {
      return begin(a) + static_cast<std::uintptr_t>(a.nbytes());
    };
    if (begin(x) < end(*y) && begin(*y) < end(x)) return {};
    return y;
  }

  void run(int threads, const T* x, Index steps, T* y) {
    const Turn turn(taken_);
    Interrupt interrupt(signal_raised);
    if (stepper_.flops(steps) + steps * kFlopsOfCalls <= kFlopsWithGil) {
      stepper_.run(x, steps, y, threads, interrupt);
    } else {
      without_gil([&] { stepper_.run(x, steps, y, threads, interrupt); });
    }
    if (interrupt.stopped()) throw py::error_already_set();
  }

  Stepper<T> stepper_;
  std::atomic<bool> taken_{false};
};

std::unique_ptr<AnyStepper> make_stepper(bool flush, py::handle layer) {
  return with_dtype_of(layer, [&](auto zero) -> std::unique_ptr<AnyStepper> {
    using T = decltype(zero);
    Held held;
    return std::make_unique<StepperOf<T>>(flush, read_layer<T>(held, layer));
  });
}

}  // namespace

void publish_stepper(py::module_& m) {
  py::class_<AnyStepper>(m, "Stepper")
      .def(py::init(&make_stepper))
      .def("run", &AnyStepper::run)
      .def("state", &AnyStepper::state)
      .def("assign", &AnyStepper::assign)
      .def_property_readonly("nbytes", &AnyStepper::nbytes);
}

}  // namespace bptt
