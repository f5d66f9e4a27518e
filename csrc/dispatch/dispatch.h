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

// Whether this CPU's third-level cache is shared by a whole socket and far away: on servers of
// Intel a core gets 30 GB/s from it, a third of what it gets where few cores share one. Clients of
// Intel that have AVX-512 are taken for servers.
bool far_third_level_cache();

// Uses another table from now on; throws std::invalid_argument as above. Calls that run already
// keep the table they began with.
void select_isa(const std::string& name);

}  // namespace bptt
