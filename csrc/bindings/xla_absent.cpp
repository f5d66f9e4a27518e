// In the place of xla.cpp, where a build has no headers of XLA.
#include "bindings/xla.h"

namespace bptt {

void publish_xla(pybind11::module_& m) {
  m.attr("xla_ffi") = pybind11::none();
  m.def("xla_handlers", [] { return pybind11::dict(); });
}

}  // namespace bptt
