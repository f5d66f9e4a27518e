// The Python class `bptt._core.Stepper`.
#pragma once

#include <pybind11/pybind11.h>

namespace bptt {

void publish_stepper(pybind11::module_& m);

}  // namespace bptt
