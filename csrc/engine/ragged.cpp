#include "engine/ragged.h"

#include <algorithm>
#include <numeric>

namespace bptt {
namespace {

// Where the rows of a ragged batch are cut into so many parts of about as many rows of all steps.
std::vector<Index> cuts(const Sequence& sequence, Index parts) {
  std::vector<Index> begins{0};
  Index rows = 0;
  sequence.for_each_row([&](Index b, Index steps) {
    const Index part = static_cast<Index>(begins.size());
    if (part < parts && rows + steps / 2 >= (sequence.rows() * part + parts - 1) / parts) {
      begins.push_back(b);
    }
    rows += steps;
  });
  begins.resize(static_cast<std::size_t>(parts + 1), sequence.batch);
  return begins;
}

// The same for parts of one row.
std::vector<Index> single_rows(const Sequence& sequence) {
  std::vector<Index> begins(static_cast<std::size_t>(std::max<Index>(1, sequence.batch)));
  std::iota(begins.begin(), begins.end(), Index{0});
  begins.push_back(sequence.batch);
  return begins;
}

// Rows of a ragged batch as a sequence of their own.
std::vector<Index> offsets_of(const Sequence& sequence, Range rows) {
  std::vector<Index> offsets{0};
  for (Index t = 0; t < sequence.steps; ++t) {
    offsets.push_back(offsets.back() + sequence.active(t, rows).size());
  }
  return offsets;
}

// The steps at which blocks begin, and the end: one ends when a slice has so many rows of it.
std::vector<Index> begins_of(const std::vector<Plan::Slice>& slices, Index steps, Index rows) {
  std::vector<Index> begins{0};
  for (Index t = 1; t <= steps; ++t) {
    const auto enough = [&](const Plan::Slice& slice) {
      const auto at = [&](Index step) { return slice.offsets[static_cast<std::size_t>(step)]; };
      return at(t) - at(begins.back()) >= rows;
    };
    if (t == steps || std::any_of(slices.begin(), slices.end(), enough)) begins.push_back(t);
  }
  return begins;
}

}  // namespace

void cut_ragged(Plan& plan, Index slices, Index block_rows) {
  const Sequence& sequence = plan.shape.sequence;
  const std::vector<Index> parts =
      plan.shape.rows_apart ? single_rows(sequence) : cuts(sequence, slices);
  plan.rows_at_once = 1;
  for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
    const Range rows{parts[i], parts[i + 1]};
    plan.rows_at_once = std::max(plan.rows_at_once, rows.size());
    plan.ragged.push_back({rows, offsets_of(sequence, rows)});
  }
  plan.begins = begins_of(plan.ragged, sequence.steps, block_rows);
  if (plan.split == Split::rows) plan.row_begins = cuts(sequence, plan.threads);
}

}  // namespace bptt
