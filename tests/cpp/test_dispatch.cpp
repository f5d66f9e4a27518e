// Dispatch: an ISA is chosen by name, by the environment or by the CPU; a name that cannot be had
// is an error that lists what can.
//
//     test_dispatch ISA        that table can be selected and is the one in use
//     test_dispatch env ISA    BPTT_ISA is set to it and took effect
//     test_dispatch env-error  BPTT_ISA is set to a name that is none
//     test_dispatch default    BPTT_ISA is empty: the best that this CPU runs
#include <cctype>
#include <cstdlib>
#include <stdexcept>

#include "isa.h"

namespace bptt::test {
namespace {

// The message of the std::invalid_argument that f throws; empty if it throws none.
template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "";
}

void check_lists_isas(const std::string& message) {
  const Scope scope([&](std::ostream& out) { out << "message \"" << message << '"'; });
  for (const std::string& isa : supported_isas()) CHECK(message.find(isa) != std::string::npos);
  CHECK(message.find("'mmx'") != std::string::npos);
}

std::string wanted;

void table_has_the_name_that_was_selected() { CHECK_EQUAL(kernel_table().name, wanted); }

void capitals_are_as_good() {
  std::string capitals = wanted;
  for (char& c : capitals) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  select_isa("generic");
  select_isa(capitals);
  CHECK_EQUAL(kernel_table().name, wanted);
}

void an_unknown_name_is_an_error_and_changes_nothing() {
  check_lists_isas(message_of([] { select_isa("mmx"); }));
  CHECK_EQUAL(kernel_table().name, wanted);
}

template <class T>
void check_widths() {
  const Kernels<T>& k = kernels<T>();
  CHECK(k.lanes > 0 && k.product_width > 0 && k.outer_width > 0);
  CHECK_EQUAL(k.product_width % k.lanes, 0);
  CHECK_EQUAL(k.outer_width % k.lanes, 0);
  CHECK(k.fma_chains(10) > 0);
}

void widths_are_multiples_of_the_lanes() {
  check_widths<float>();
  check_widths<double>();
}

// Of float and of double alike.
void every_cell_is_where_its_name_says() {
  const Kernels<float>& f32 = kernels<float>();
  const Kernels<double>& f64 = kernels<double>();
  CHECK_EQUAL(f32.cells.size(), registered_cells().size());
  CHECK_EQUAL(f64.cells.size(), registered_cells().size());
  for (std::size_t i = 0; i < registered_cells().size(); ++i) {
    const std::string name = registered_cells()[i].name;
    CHECK_EQUAL(std::string(f32.cells[i].name), name);
    CHECK_EQUAL(std::string(f64.cells[i].name), name);
    CHECK(find_cell(name) == static_cast<CellId>(i));
  }
  CHECK(find_cell("linear") == Cells::linear && find_cell("tanh") == Cells::tanh);
  CHECK(find_cell("relu") == Cells::relu && find_cell("lstm") == Cells::lstm);
  CHECK(find_cell("gru") == Cells::gru && !find_cell("elm"));
}

void environment_variable_took_effect() { CHECK_EQUAL(kernel_table().name, wanted); }

void bad_environment_variable_is_an_error_at_every_call() {
  for (int call = 0; call < 3; ++call) {
    const std::string message = message_of([] { kernel_table(); });
    check_lists_isas(message);
    CHECK(message.find("BPTT_ISA") != std::string::npos);
  }
  select_isa("generic");  // and a name that exists ends it
  CHECK_EQUAL(kernel_table().name, std::string("generic"));
}

void best_isa_is_the_default() { CHECK_EQUAL(kernel_table().name, supported_isas().front()); }

}  // namespace
}  // namespace bptt::test

int main(int argc, char** argv) {
  using namespace bptt::test;
  const std::string mode = argc > 1 ? argv[1] : "";
  if (mode == "env-error") {
    return run_tests({{"a bad BPTT_ISA is an error at every call",
                       bad_environment_variable_is_an_error_at_every_call}});
  }
  if (mode == "default") {
    return run_tests({{"the best ISA is the default", best_isa_is_the_default}});
  }
  wanted = argc > 1 ? argv[argc - 1] : "";
  if (mode == "env") {
    if (!runs_here(wanted)) {
      std::cout << "skipped: this CPU or this build has no " << wanted << std::endl;
      return kSkipped;
    }
    return run_tests({{"BPTT_ISA took effect", environment_variable_took_effect}});
  }
  return run_tests_on_isa(
      argc, argv,
      {{"the table has the name that was selected", table_has_the_name_that_was_selected},
       {"capitals are as good", capitals_are_as_good},
       {"an unknown name is an error and changes nothing",
        an_unknown_name_is_an_error_and_changes_nothing},
       {"every cell is where its name says", every_cell_is_where_its_name_says},
       {"widths are multiples of the lanes", widths_are_multiples_of_the_lanes}});
}
