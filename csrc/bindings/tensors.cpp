#include "bindings/tensors.h"

#include <pybind11/stl.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings/dlpack.h"
#include "bindings/interruptible.h"
#include "bindings/requests.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace bptt {
namespace {

using dlpack::DLManagedTensorVersioned;
using dlpack::DLPackExchangeAPI;
using dlpack::DLTensor;

// Thrown where a tensor is none that a kernel reads as it lies.
struct Unfit {};

constexpr std::size_t kLine = 64;
// Bytes from which on huge pages are asked for, as NumPy does.
constexpr std::size_t kHuge = std::size_t{1} << 22;

// Memory of a tensor that is made here, in front of its values.
struct alignas(kLine) Block {
  static constexpr int kMostAxes = 4;
  DLManagedTensorVersioned managed;
  std::int64_t sizes[kMostAxes], strides[kMostAxes];

  static Block* allocate(std::size_t bytes) {
    const std::size_t all = (sizeof(Block) + bytes + kLine - 1) / kLine * kLine;
    void* const memory = std::aligned_alloc(kLine, all);
    if (!memory) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
    if (all >= kHuge) {
      constexpr std::uintptr_t kPage = 4096;
      const auto begin = reinterpret_cast<std::uintptr_t>(memory);
      const std::uintptr_t first = (begin + kPage - 1) / kPage * kPage;
      madvise(reinterpret_cast<void*>(first), begin + all - first, MADV_HUGEPAGE);
    }
#endif
    return new (memory) Block{};
  }

  static void free(DLManagedTensorVersioned* managed) { std::free(managed->manager_ctx); }
};

template <class T>
constexpr dlpack::DLDataType kDataType{dlpack::kDLFloat, 8 * sizeof(T), 1};

// A library of tensors, by the functions that DLPack has for C: none of its own is linked.
class Library {
 public:
  // `exchange` is the capsule of its class of tensors; objects of `types` alone are read.
  Library(const py::capsule& exchange, std::vector<py::object> types) : types_(std::move(types)) {
    api_ = static_cast<const DLPackExchangeAPI*>(
        PyCapsule_GetPointer(exchange.ptr(), "dlpack_exchange_api"));
    if (!api_) throw py::error_already_set();
    if (api_->header.version.major != dlpack::kMajorVersion ||
        !api_->dltensor_from_py_object_no_sync) {
      throw py::value_error("exchange: expected DLPack 1.x, with DLTensors");
    }
  }

  // A tensor of host memory whose items lie as its axes say; the memory is the tensor's.
  DLTensor view(py::handle tensor) const {
    static PyObject* const is_neg = PyUnicode_InternFromString("is_neg");
    bool plain = false;
    for (const py::object& type : types_) {
      plain = plain || reinterpret_cast<PyObject*>(Py_TYPE(tensor.ptr())) == type.ptr();
    }
    if (!plain) throw Unfit{};
    // Whether its values are those in memory, or these with the other sign: DLPack does not say.
    PyObject* const negated = PyObject_CallMethodNoArgs(tensor.ptr(), is_neg);
    Py_XDECREF(negated);
    DLTensor found{};
    if (negated != Py_False || api_->dltensor_from_py_object_no_sync(tensor.ptr(), &found) != 0) {
      PyErr_Clear();
      throw Unfit{};
    }
    std::int64_t stride = 1;
    for (int axis = found.ndim - 1; axis >= 0; --axis) {
      const bool dense = !found.strides || found.strides[axis] == stride;
      if (found.shape[axis] != 1 && !dense) throw Unfit{};
      stride *= found.shape[axis];
    }
    const bool there = found.device.device_type == dlpack::kDLCPU && found.data;
    if (!there || stride == 0) throw Unfit{};
    return found;
  }

  // A new tensor, whose values are for the caller to write.
  template <class T>
  py::object make(const Dimensions& shape, T*& data) const {
    std::int64_t items = 1;
    for (int axis = 0; axis < shape.count(); ++axis) items *= shape[axis];
    Block* const block = Block::allocate(static_cast<std::size_t>(items) * sizeof(T));
    data = reinterpret_cast<T*>(block + 1);
    std::int64_t stride = 1;
    for (py::ssize_t axis = shape.count() - 1; axis >= 0; --axis) {
      block->sizes[axis] = shape[axis];
      block->strides[axis] = stride;
      stride *= shape[axis];
    }
    block->managed = {{dlpack::kMajorVersion, dlpack::kMinorVersion},
                      block,
                      &Block::free,
                      0,
                      {data,
                       {dlpack::kDLCPU, 0},
                       static_cast<std::int32_t>(shape.count()),
                       kDataType<T>,
                       block->sizes,
                       block->strides,
                       0}};
    void* tensor = nullptr;
    if (api_->managed_tensor_to_py_object_no_sync(&block->managed, &tensor) != 0) {
      Block::free(&block->managed);
      throw py::error_already_set();
    }
    return py::reinterpret_steal<py::object>(static_cast<PyObject*>(tensor));
  }

 private:
  const DLPackExchangeAPI* api_;
  std::vector<py::object> types_;
};

// The tensors of a call, of one dtype.
template <class T>
class Call {
 public:
  // `flat` is x, each part of the state, w_ih, w_hh, b_ih, b_hh; of the state and of the biases
  // some may be None. With `layers` a state has an axis for these in front, of size 1.
  Call(const Library& library, CellId id, const py::tuple& flat, py::handle offsets, bool layers)
      : library_(library), layers_(layers) {
    const CellShape& cell = shape_of(id);
    const std::size_t parts = static_cast<std::size_t>(cell.states);
    if (flat.size() != 1 + parts + kLayerParams) throw py::value_error("flat: unexpected length");
    const DLTensor x = library.view(flat[0]), w_hh = library.view(flat[2 + parts]);
    if (x.ndim != (offsets.is_none() ? 3 : 2) || w_hh.ndim != 2) throw Unfit{};
    p_.sequence = sequence_of(x, flat[1], offsets);
    p_.inputs = x.shape[x.ndim - 1], p_.hidden = w_hh.shape[1];
    p_.cell = cell, p_.id = id;
    const Index sums = cell.gates * p_.hidden;
    p_.x = input(flat[0], rows_of(p_, {p_.inputs}));
    p_.state = initial(flat[1]);
    p_.c = parts > 1 ? initial(flat[2]) : nullptr;
    p_.w_ih = input(flat[1 + parts], {sums, p_.inputs});
    p_.w_hh = input(flat[2 + parts], {sums, p_.hidden});
    p_.b_ih = optional(flat[3 + parts], {sums});
    p_.b_hh = optional(flat[4 + parts], {sums});
  }

  // y and c of all steps, each part of the last state, and, if they are wanted, the gates.
  py::tuple forward(bool gates, Execution execution) const {
    const Dimensions rows = rows_of(p_, {p_.hidden});
    std::vector<py::object> made;
    const auto make = [&](const Dimensions& shape) {
      T* data = nullptr;
      made.push_back(library_.make(shape, data));
      return data;
    };
    const bool pair = p_.cell.states > 1;
    Record<T> record{make(rows), pair ? make(rows) : nullptr, nullptr};
    const State<T> last{make(of_state()), pair ? make(of_state()) : nullptr};
    if (gates && p_.cell.saved) record.saved = make(rows_of(p_, {p_.cell.saved, p_.hidden}));
    run_interruptibly(
        [&](Interrupt& interrupt) { bptt::forward(p_, record, last, execution, interrupt); });
    return py::tuple(py::cast(made));
  }

  // The gradients of `flat` that are needed, None for the others; with `apart` those of weights are
  // (B, ...), of each row of the batch. `kept` is y, c and the gates of a forward pass, `incoming`
  // what comes in at y and at each part of the last state, or None.
  py::tuple backward(const py::tuple& kept, const py::tuple& incoming, const py::tuple& needed,
                     bool apart, Execution execution) const {
    const std::size_t parts = static_cast<std::size_t>(p_.cell.states);
    const Dimensions rows = rows_of(p_, {p_.hidden});
    const bool pair = parts > 1;
    if (kept.size() < parts || incoming.size() != 1 + parts ||
        needed.size() != 1 + parts + kLayerParams) {
      throw py::value_error("kept, incoming, needed: unexpected length");
    }
    const Dimensions of_gates = rows_of(p_, {p_.cell.saved, p_.hidden});
    const Record<const T> record{input(kept[0], rows), pair ? input(kept[1], rows) : nullptr,
                                 kept.size() > parts ? input(kept[parts], of_gates) : nullptr};
    const StateGradients<T> given{optional(incoming[0], rows), nullptr,
                                  optional(incoming[1], of_state()),
                                  pair ? optional(incoming[2], of_state()) : nullptr, nullptr};
    py::tuple found(needed.size());
    const auto make = [&](std::size_t at, const Dimensions& shape) -> T* {
      if (needed[at].ptr() != Py_True) {
        found[at] = py::none();
        return nullptr;
      }
      T* data = nullptr;
      found[at] = library_.make(shape, data);
      return data;
    };
    const auto of_weight = [&](std::size_t at, std::initializer_list<Index> shape) {
      const Dimensions each({p_.sequence.batch}, shape);
      return make(1 + parts + at, apart ? each : Dimensions({}, shape));
    };
    const Index sums = p_.cell.gates * p_.hidden;
    Gradients<T> into{};
    into.of_rows = apart ? OfRows::each : OfRows::sum;
    into.x = make(0, rows_of(p_, {p_.inputs}));
    into.state = make(1, of_state());
    if (pair) into.c = make(2, of_state());
    into.w_ih = of_weight(0, {sums, p_.inputs});
    into.w_hh = of_weight(1, {sums, p_.hidden});
    into.b_ih = of_weight(2, {sums});
    into.b_hh = of_weight(3, {sums});
    run_interruptibly([&](Interrupt& interrupt) {
      bptt::backward(p_, record, given, into, Trace<T>{}, execution, interrupt);
    });
    return found;
  }

 private:
  Sequence sequence_of(const DLTensor& x, py::handle state, py::handle offsets) const {
    if (offsets.is_none()) return {x.shape[0], x.shape[1]};
    if (state.is_none()) return ragged_sequence(offsets, {});
    const DLTensor first = library_.view(state);
    if (first.ndim != (layers_ ? 3 : 2)) throw Unfit{};
    return ragged_sequence(offsets, first.shape[first.ndim - 2]);
  }

  Dimensions of_state() const {
    const Index b = p_.sequence.batch, h = p_.hidden;
    return layers_ ? Dimensions{1, b, h} : Dimensions{b, h};
  }

  const T* input(py::handle tensor, const Dimensions& shape) const {
    const DLTensor found = library_.view(tensor);
    bool fits = found.ndim == shape.count() && found.dtype.code == kDataType<T>.code &&
                found.dtype.bits == kDataType<T>.bits && found.dtype.lanes == 1;
    for (int axis = 0; fits && axis < found.ndim; ++axis) fits = found.shape[axis] == shape[axis];
    const auto* const data = static_cast<const std::byte*>(found.data) + found.byte_offset;
    if (!fits || reinterpret_cast<std::uintptr_t>(data) % alignof(T) != 0) throw Unfit{};
    return reinterpret_cast<const T*>(data);
  }

  const T* optional(py::handle tensor, const Dimensions& shape) const {
    return tensor.is_none() ? nullptr : input(tensor, shape);
  }

  const T* initial(py::handle tensor) {
    if (!tensor.is_none()) return input(tensor, of_state());
    zeros_.resize(static_cast<std::size_t>(p_.sequence.batch * p_.hidden));
    return zeros_.data();
  }

  const Library& library_;
  bool layers_;
  std::vector<T> zeros_;
  Problem<T> p_{};
};

// f(Call<T>) of the tensors' dtype; None if one of them is no dense one of that dtype, on the host
// and of the shape that it has to have.
template <class F>
py::object with_call(const Library& library, const std::string& cell, const py::tuple& flat,
                     py::handle offsets, bool layers, F&& f) {
  try {
    const dlpack::DLDataType dtype = library.view(flat[0]).dtype;
    const auto run = [&](auto zero) -> py::object {
      return f(Call<decltype(zero)>(library, cell_of(cell), flat, offsets, layers));
    };
    return dtype.bits == kDataType<float>.bits ? run(float{}) : run(double{});
  } catch (const Unfit&) {
    return py::none();
  }
}

}  // namespace

void publish_tensors(py::module_& m) {
  py::class_<Library>(m, "Tensors")
      .def(py::init<const py::capsule&, std::vector<py::object>>())
      .def("forward",
           [](const Library& library, int threads, bool flush, const std::string& cell,
              const py::tuple& flat, py::handle offsets, bool layers, bool gates) {
             return with_call(library, cell, flat, offsets, layers, [&](const auto& call) {
               return call.forward(gates, {threads, flush});
             });
           })
      .def("backward",
           [](const Library& library, int threads, bool flush, const std::string& cell,
              const py::tuple& flat, py::handle offsets, bool layers, const py::tuple& kept,
              const py::tuple& incoming, const py::tuple& needed, bool apart) {
             return with_call(library, cell, flat, offsets, layers, [&](const auto& call) {
               return call.backward(kept, incoming, needed, apart, {threads, flush});
             });
           });
}

}  // namespace bptt
