// Handlers of XLA's foreign function interface: a layer and its way back, as JAX calls them.
#pragma once

#include <pybind11/pybind11.h>

namespace bptt {

// Adds `xla_ffi`, the version of that interface, and `xla_handlers()`, a capsule for each target,
// to the module; of a build without XLA's headers None, and no targets.
void publish_xla(pybind11::module_& m);

}  // namespace bptt
