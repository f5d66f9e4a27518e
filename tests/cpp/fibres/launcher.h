// The words on a CPU, and what runs kernels by their names from Python (tests/host_launcher.py), as
// a driver does on a GPU. Kernels are those that were written for NVRTC.
#pragma once

#include <cstddef>
#include <string>
#include <utility>

#include "fibres/words.h"

#define __global__
#define __launch_bounds__(...)

namespace bptt::fibres {

// Arguments are pointers and 64-bit integers alone, as Python has them.
template <class... A, std::size_t... I>
void call(void (*kernel)(A...), const long long* arguments, std::index_sequence<I...>) {
  static_assert(((sizeof(A) == sizeof(long long)) && ...));
  kernel((A)(arguments[I])...);
}

// The fault, or null. `count` is how many arguments there are.
template <class... A>
const char* run(void (*kernel)(A...), const Launch& how, const long long* arguments, int count) {
  static std::string fault;
  if (count != static_cast<int>(sizeof...(A))) return "another number of arguments";
  fault = launch(how, [&] { call(kernel, arguments, std::index_sequence_for<A...>()); }).fault;
  return fault.empty() ? nullptr : fault.c_str();
}

}  // namespace bptt::fibres

#define BPTT_LAUNCHES(kernel)                                                                    \
  extern "C" const char* launch_##kernel(int blocks, int threads, int cluster,                   \
                                         std::size_t shared_bytes, unsigned seed,                \
                                         const long long* arguments, int count) {                \
    return bptt::fibres::run(bptt::cuda::kernel,                                                 \
                             {blocks, threads, cluster, shared_bytes, seed, nullptr}, arguments, \
                             count);                                                             \
  }
