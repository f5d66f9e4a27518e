#include "engine/plan.h"

#include <algorithm>

namespace bptt {
namespace {

// Rows (steps times batch) of a block: its inputs, states and gradients stay in the second-level
// cache while the weight gradient is summed over them.
constexpr Index kBlockRows = 256;

// Multiply-adds below which a second thread costs more than it brings: about 20 us of one.
constexpr Index kWorkForTeam = 1'000'000;
// The same for one step of a hidden split, which ends with an exchange.
constexpr Index kStepWorkForTeam = 60'000;
// Bytes of w_hh up to which few rows a thread still beat a split of the hidden units.
constexpr Index kRecurrentBytesForFewRows = 1 << 20;

}  // namespace

Range share(Index n, Index grain, int i, int parts) {
  const Index pieces = (n + grain - 1) / grain;
  const Index begin = pieces * i / parts * grain;
  const Index end = pieces * (i + 1) / parts * grain;
  return {std::min(begin, n), std::min(end, n)};
}

Plan make_plan(const Shape& s, Index panel, Index item_size, int threads) {
  Plan plan{1, Split::rows, std::max<Index>(1, kBlockRows / std::max<Index>(1, s.batch)), false};
  const Index step_work = s.batch * s.hidden * (s.inputs + s.hidden);
  const Index panels = (s.hidden + panel - 1) / panel;
  if (threads > 1 && step_work * s.steps >= kWorkForTeam) {
    const Index recurrent_bytes = s.hidden * s.hidden * item_size;
    const bool many_rows = s.batch >= 4 * threads;
    const bool enough_rows = s.batch >= 2 * threads && recurrent_bytes <= kRecurrentBytesForFewRows;
    const bool units_pay = panels >= 2 && step_work >= kStepWorkForTeam;
    if (many_rows || enough_rows || (s.batch > 1 && !units_pay)) {
      plan.threads = static_cast<int>(std::min<Index>(threads, s.batch));
    } else if (units_pay) {
      plan.split = Split::hidden;
      plan.threads = static_cast<int>(std::min<Index>(threads, panels));
    }
  }
  // With few rows a step, more rows of the projection fill the tile; a thread must have them all.
  plan.project_first = s.batch <= 2 && (plan.threads == 1 || plan.split == Split::hidden);
  return plan;
}

Range Plan::rows_of(int thread, const Shape& s) const {
  return split == Split::rows ? share(s.batch, 1, thread, threads) : Range{0, s.batch};
}

Range Plan::units_of(int thread, const Shape& s, Index panel) const {
  return split == Split::hidden ? share(s.hidden, panel, thread, threads) : Range{0, s.hidden};
}

}  // namespace bptt
