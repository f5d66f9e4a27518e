// The kernels under test: those of the instruction set that the command line names.
#pragma once

#include <algorithm>
#include <cmath>
#include <iostream>
#include <string>

#include "check.h"
#include "dispatch/dispatch.h"

namespace bptt::test {

template <class T>
const Kernels<T>& kernels() {
  return kernel_table().of<T>();
}

// The cells that tests name; `every_cell_is_where_its_name_says` holds them against the registry.
struct Cells {
  static constexpr CellId linear{0}, tanh{1}, relu{2}, lstm{3}, gru{4};
  static int count() { return static_cast<int>(registered_cells().size()); }
};

inline const char* name_of(CellId cell) {
  return registered_cells()[static_cast<std::size_t>(cell)].name;
}

inline bool runs_here(const std::string& isa) {
  const auto names = supported_isas();
  return std::find(names.begin(), names.end(), isa) != names.end();
}

// a * b + c as the active kernels compute it: rounded once, or twice where the ISA has no FMA.
template <class T>
using MultiplyAdd = T (*)(T, T, T);

template <class T>
MultiplyAdd<T> multiply_add_of_isa() {
  if (std::string(kernel_table().name) == "generic") return [](T a, T b, T c) { return a * b + c; };
  return [](T a, T b, T c) { return std::fma(a, b, c); };
}

// Selects the ISA named by the first argument and runs the tests.
inline int run_tests_on_isa(int argc, char** argv, std::initializer_list<Test> tests) {
  if (argc != 2) {
    std::cout << "usage: " << argv[0] << " ISA" << std::endl;
    return 2;
  }
  if (!runs_here(argv[1])) {
    std::cout << "skipped: this CPU or this build has no " << argv[1] << std::endl;
    return kSkipped;
  }
  select_isa(argv[1]);
  return run_tests(tests);
}

}  // namespace bptt::test
