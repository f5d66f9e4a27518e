// How a ragged batch is cut: into slices that have about as many rows of all steps, and time into
// blocks of about as many rows.
#pragma once

#include "engine/plan.h"

namespace bptt {

// Cuts a plan's batch into so many slices, and time into blocks of which one of the slices has at
// least so many rows.
void cut_ragged(Plan& plan, Index slices, Index block_rows);

}  // namespace bptt
