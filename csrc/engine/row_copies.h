// Rows of an array by their index: what a row map moves at the border of a call.
#pragma once

#include <cstddef>

#include "contract/kernels.h"
#include "engine/execution.h"

namespace bptt {

// out[i] = rows[index[i]] for `count` rows of so many bytes; zeros where the index is -1.
void take_rows(const std::byte* rows, const Index* index, Index count, Index row_bytes,
               std::byte* out, const Execution& execution);

// out[index[i]] = rows[i]; no row of `out` is named twice.
void put_rows(const std::byte* rows, const Index* index, Index count, Index row_bytes,
              std::byte* out, const Execution& execution);

}  // namespace bptt
