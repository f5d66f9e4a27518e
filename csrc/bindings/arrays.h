// NumPy arrays as plain pointers, with the last check before a kernel reads them: dtype, layout and
// shape. The Python layer has said all of it in better words; this only keeps a wrong call of the
// private module from crashing the process.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <initializer_list>
#include <string>

#include "contract/kernels.h"

namespace bptt {

namespace py = pybind11;

// The sizes of an array's axes.
class Dimensions {
 public:
  Dimensions(std::initializer_list<Index> sizes) : Dimensions({}, sizes) {}
  Dimensions(std::initializer_list<Index> first, std::initializer_list<Index> rest) {
    for (Index size : first) sizes_[count_++] = size;
    for (Index size : rest) sizes_[count_++] = size;
  }
  Dimensions(const py::ssize_t* first, py::ssize_t count, Index last) {
    if (count >= kMost) throw py::value_error("unexpected rank");
    for (py::ssize_t i = 0; i < count; ++i) sizes_[count_++] = first[i];
    sizes_[count_++] = last;
  }

  py::ssize_t count() const { return count_; }
  Index operator[](py::ssize_t axis) const { return sizes_[axis]; }

 private:
  static constexpr int kMost = 6;
  Index sizes_[kMost] = {};
  int count_ = 0;
};

inline void expect_shape(const char* name, const py::array& array, const Dimensions& shape) {
  bool fits = array.ndim() == shape.count();
  for (py::ssize_t i = 0; fits && i < shape.count(); ++i) fits = array.shape(i) == shape[i];
  if (!fits) throw py::value_error(std::string(name) + ": unexpected shape");
}

// Rows of all axes but the last one.
inline Index rows_in(const py::array& array) {
  Index rows = 1;
  for (py::ssize_t axis = 0; axis + 1 < array.ndim(); ++axis) rows *= array.shape(axis);
  return rows;
}

// What is an array, as one; nothing is converted.
inline py::array array_of(const char* name, py::handle value) {
  if (!py::isinstance<py::array>(value)) {
    throw py::type_error(std::string(name) + ": expected an array");
  }
  return py::reinterpret_borrow<py::array>(value);
}

template <class T>
py::array expect_dense(const char* name, py::handle value) {
  if (!py::isinstance<py::array_t<T, py::array::c_style>>(value)) {
    throw py::type_error(std::string(name) + ": expected a dense array of the call's dtype");
  }
  auto array = py::reinterpret_borrow<py::array>(value);
  if (reinterpret_cast<std::uintptr_t>(array.data()) % alignof(T) != 0) {
    throw py::type_error(std::string(name) + ": expected an aligned array");
  }
  return array;
}

// The data of a dense array of that dtype and shape.
template <class T>
const T* input(const char* name, py::handle value, const Dimensions& shape) {
  const py::array array = expect_dense<T>(name, value);
  expect_shape(name, array, shape);
  return static_cast<const T*>(array.data());
}

// The same for an array to be written; throws if it is read-only.
template <class T>
T* output(const char* name, py::handle value, const Dimensions& shape) {
  const T* data = input<T>(name, value, shape);
  if (!py::reinterpret_borrow<py::array>(value).writeable()) {
    throw py::value_error(std::string(name) + ": read-only");
  }
  return const_cast<T*>(data);
}

template <class T>
const T* optional_input(const char* name, py::handle value, const Dimensions& shape) {
  return value.is_none() ? nullptr : input<T>(name, value, shape);
}

template <class T>
T* optional_output(const char* name, py::handle value, const Dimensions& shape) {
  return value.is_none() ? nullptr : output<T>(name, value, shape);
}

// f(T{}) with T float or double, as the array's dtype says.
template <class F>
auto with_dtype(const py::array& array, F&& f) {
  if (py::isinstance<py::array_t<float>>(array)) return f(float{});
  if (py::isinstance<py::array_t<double>>(array)) return f(double{});
  throw py::type_error("expected dtype float32 or float64");
}

}  // namespace bptt
