// Chooses the kernel table: the best instruction set that this build has and this CPU runs, or the
// one that the environment variable BPTT_ISA names, in letters of either case. Any thread may ask.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "contract/kernels.h"

namespace bptt {

// The names of the tables that this CPU can run, best first.
std::vector<std::string> supported_isas();

// The table in use. The first call reads BPTT_ISA; throws std::invalid_argument if that names an
// ISA which this build or this CPU lacks, then and at every later call.
const KernelTable& kernel_table();

// All cells; they are the same, at the same places, in every table.
std::span<const Cell<float>> registered_cells();
// The one of this name, if there is one; and how many of what it has.
std::optional<CellId> find_cell(const std::string& name);
const CellShape& shape_of(CellId cell);

// What tells one kind of CPU from another, whichever table is in use.
enum class Vendor { amd, intel, other };
struct Cpu {
  Vendor vendor;
  int family;  // as CPUID counts them: AMD's 25 is Zen 3 and Zen 4, 26 is Zen 5; 0 of other vendors
  bool avx512;
};
Cpu this_cpu();

// Uses another table from now on; throws std::invalid_argument as above. Calls that run already
// keep the table they began with.
void select_isa(const std::string& name);

}  // namespace bptt
