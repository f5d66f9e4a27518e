// The Python class `bptt._core.Tensors`.
#pragma once

#include <pybind11/pybind11.h>

namespace bptt {

void publish_tensors(pybind11::module_& m);

}  // namespace bptt
