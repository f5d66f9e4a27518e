#include "engine/plan.h"

#include <algorithm>

#include "engine/ragged.h"

namespace bptt {
namespace {

// Rows (steps times batch) whose weight gradient is summed in registers. Few of them where the
// weights are small and a pipeline should start early; more where what they are added to is large.
constexpr Index kSumRows = 256, kSumRowsOfFew = 64, kSumRowsOfLarge = 512;
constexpr Index kSmallWeightBytes = 128 << 10, kLargeWeightBytes = 4 << 20;
// Rows of a slice, where the batch has enough for several, and the most slices: each has a sum of
// its own, as large as the weights, so those must be small.
constexpr Index kSliceRows = 64, kMostSlices = 64;
constexpr Index kSlicedWeightBytes = 1 << 20, kSliceSumBytes = 16 << 20;
constexpr Index kRowsAtOnce = 128;
// Fewest rows that go through time together where each has sums of its own.
constexpr Index kLeastRowsApart = 12;
// Cache lines that come from another core at a time, each in about the time of a barrier: where a
// step begins by reading them, and where they are read as a stream.
constexpr double kLinesOfStep = 2, kLinesOfStream = 12, kLineBytes = 64;
// Most sums of a block, so that Ctrl-C and progress have their turns.
constexpr Index kSumsOfBlock = 16;
// Rows of a batch up to which a projection of many steps at once fills the tiles better.
constexpr Index kFewRows = 2;
// Rows that pass over the weights together: those of a register tile.
constexpr Index kTileRows = 6;

Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

// The model for one shape and type.
struct Model {
  const Shape& s;
  Index panel, item_size;
  Passes passes;
  const Machine& machine;

  Index steps() const { return s.sequence.steps; }
  Index batch() const { return s.sequence.batch; }
  // Rows of a step, on average.
  Index active() const {
    return s.sequence.dense() ? batch() : ceil_div(s.sequence.rows(), std::max<Index>(1, steps()));
  }

  double flops_rate() const { return machine.product_flops * 4 / static_cast<double>(item_size); }

  double weight_rate(Index bytes) const {
    if (bytes <= machine.l1_bytes) return machine.l1_rate;
    return bytes <= machine.l2_bytes ? machine.l2_rate : machine.l3_rate;
  }

  Index weight_bytes() const {
    return s.hidden * (s.cell.gates * (s.inputs + s.hidden) + s.outputs) * item_size;
  }

  // Whether the weights come from afar at every step. Then each thread reads its own units' alone,
  // and those of the inputs once a block.
  bool streamed() const { return weight_bytes() > machine.near_bytes; }

  // Seconds a byte of weights that so many rows meet. Rows of a tile pass over a panel together:
  // the first come from where all weights lie, the others have it from the second-level cache.
  // Panels that are fetched ahead come while others are read.
  double reading(Index rows, Index bytes, bool far) const {
    if (rows == 0) return 0;
    const double tiles = static_cast<double>(ceil_div(rows, kTileRows));
    const double first = 1 / weight_rate(bytes), again = std::min(first, 1 / machine.l2_rate);
    return far && tiles > 1 ? std::max(first, tiles * again) : first + (tiles - 1) * again;
  }

  // One step of `rows` x `units`, each of whose gates is a sum over k: bound by multiply-adds or by
  // the weights. Beside it, of each unit so many values of the arrays that grow with T.
  double step(Index rows, Index units, Index k, bool far, Index values) const {
    const double flops = 2.0 * static_cast<double>(rows * units * s.cell.gates * k);
    const Index bytes = units * s.cell.gates * k * item_size;
    const double pointwise =
        machine.unit_seconds * static_cast<double>(rows * units * functions() * item_size) / 4;
    return std::max(flops / flops_rate(), reading(rows, bytes, far) * static_cast<double>(bytes)) +
           pointwise + arrays(rows * units * values) + machine.step_seconds;
  }

  // Elementary functions of a unit: of a gated cell its gates and its state.
  Index functions() const { return s.cell.gated() ? s.cell.gates + 1 : 1; }

  // States of a unit, and what else a cell saves of it: values of arrays that grow with T.
  Index recorded() const { return s.cell.states + s.cell.saved; }

  // Reading or writing so many values of arrays that grow with T, from where all of them fit: x, y,
  // c, what is saved, dy and dx. A register tile begins with them, so its sums wait.
  double arrays(Index values) const {
    const Index row = 2 * s.inputs + (1 + recorded()) * s.hidden;
    const Index bytes = s.sequence.rows() * row * item_size;
    if (bytes <= machine.l2_bytes) return 0;
    const double rate = bytes <= machine.near_bytes ? machine.l3_rate : machine.memory_rate;
    return static_cast<double>(values * item_size) / rate;
  }

  // One step's share of the products that are done block by block, which read or write x or dx so
  // often.
  double products(Index columns, Index inputs) const {
    return 2.0 * static_cast<double>(active() * s.hidden * columns) / flops_rate() +
           arrays(active() * inputs * s.inputs);
  }

  Cost cost(const Plan& plan) const {
    const double steps = static_cast<double>(this->steps());
    const Index rows = rows_of_member(plan);
    const Index units = units_of_member(plan);
    const double start = plan.threads > 1 ? machine.start_seconds : 0;
    Cost c{0, 0, start, start};
    // Weights are read and packed once a pass; their gradients are set to zero and added to.
    const double packed = s.sequence.rows() > 0 ? 2 * static_cast<double>(weight_bytes()) : 0;
    const double packing = packed / (streamed() ? machine.memory_rate : machine.l3_rate);
    const int forward = passes == Passes::backward ? 0 : passes == Passes::both_in_segments ? 2 : 1;
    for (int i = 0; i < forward; ++i) {
      const Index k = s.hidden + (plan.project_first ? 0 : s.inputs);
      add(c, plan, s.hidden, steps * step(rows, units, k, plan.far(k), recorded()),
          steps * products(plan.project_first ? s.cell.gates * s.inputs : 0, 1) + packing);
    }
    if (passes != Passes::forward) {
      add(c, plan, s.cell.deltas() * s.hidden,
          steps * step(rows, units, s.hidden, plan.far(s.hidden), 1 + recorded()),
          steps * products(s.cell.gates * (2 * s.inputs + s.hidden) + 3 * s.outputs, 2) +
              2 * packing);
    }
    return c;
  }

  // Units of a step that are one member's, at most.
  Index units_of_member(const Plan& plan) const {
    if (plan.split != Split::hidden) return s.hidden;
    return std::min(s.hidden, ceil_div(ceil_div(s.hidden, panel), plan.threads) * panel);
  }

  // Rows of a step that are one member's, at most.
  Index rows_of_member(const Plan& plan) const {
    if (s.sequence.dense()) return plan.rows_of(plan.threads - 1).size();
    const bool by_rows = plan.split == Split::slices || plan.split == Split::rows;
    return by_rows ? ceil_div(active(), plan.threads) : active();
  }

  // Reading what another thread wrote at one step: so many values of each of its rows.
  double crossing(Index values, double lines_at_once) const {
    const double bytes = static_cast<double>(active() * values * item_size);
    return bytes / (lines_at_once * kLineBytes) * machine.barrier_seconds;
  }

  // Adds a pass: how many values of a row a step begins with; its recurrence, split as the plan
  // says, and its products on one thread.
  void add(Cost& c, const Plan& plan, Index values, double recurrence, double products) const {
    const double blocks = static_cast<double>(ceil_div(steps(), plan.block_steps));
    c.recurrence += recurrence;
    if (plan.split == Split::pipeline) {  // the products read what the recurrence wrote
      const double barriers = blocks * machine.barrier_seconds;
      const double crossed = static_cast<double>(steps()) * crossing(2 * s.hidden, kLinesOfStream);
      c.products += products;
      c.exchange += barriers + crossed;
      c.total +=
          std::max(recurrence, products + crossed) + products / std::max(1.0, blocks) + barriers;
      return;
    }
    const double exchanged = exchange(plan, values, blocks);
    c.products += products / plan.threads;
    c.exchange += exchanged;
    c.total += recurrence + products / plan.threads + exchanged;
  }

  // Where the members of a pass meet, and what they read of each other, but in a pipeline.
  double exchange(const Plan& plan, Index values, double blocks) const {
    if (plan.threads == 1) return 0;
    const double steps = static_cast<double>(this->steps()), others = 1 - 1.0 / plan.threads;
    if (plan.split == Split::hidden) {
      return steps * (machine.barrier_seconds + others * crossing(values, kLinesOfStep));
    }
    if (plan.split == Split::slices) return machine.barrier_seconds;
    // Weight gradients read the rows of others.
    const double crossed = crossing(s.inputs + 2 * s.hidden, kLinesOfStream);
    return blocks * machine.barrier_seconds + steps * others / plan.threads * crossed;
  }

  // How many slices; one where they are not worth their sums. A power of two, so that they can be
  // shared out evenly.
  Index slices() const {
    if (s.rows_apart) return std::max<Index>(1, batch());
    const Index bytes = weight_bytes();
    if (batch() < 4 || bytes > kSlicedWeightBytes) return 1;
    const Index most =
        std::min({kSliceSumBytes / std::max<Index>(1, bytes), kMostSlices,
                  std::max<Index>(2, ceil_div(active(), kSliceRows)),
                  s.sequence.rows() / kSumRows});  // no fewer than are summed at once
    Index slices = 1;
    while (2 * slices <= most) slices *= 2;
    return slices;
  }
  Index slice_rows() const { return std::max<Index>(1, ceil_div(batch(), slices())); }

  // The split by rows in which nobody waits, if there are slices for everybody.
  Split by_rows(Index threads) const {
    if (ragged_slices()) return Split::slices;
    return threads == 1 || ceil_div(batch(), slice_rows()) >= threads ? Split::slices : Split::rows;
  }

  // Rows apart are fewer, so that their sums stay in a cache.
  Index most_rows_at_once() const {
    if (!s.rows_apart) return kRowsAtOnce;
    return std::clamp(kSliceSumBytes / std::max<Index>(1, weight_bytes()), kLeastRowsApart,
                      kRowsAtOnce);
  }

  // Whether the batch is ragged and of several slices: each goes through time alone.
  bool ragged_slices() const { return !s.sequence.dense() && slices() > 1; }

  // At most so many sums of a block, such that a part begins and ends with blocks.
  Index sums_that_meet(Index sum_steps, Index most) const {
    if (!s.in_parts()) return most;
    const auto meets = [&](Index border, Index sums) { return border % (sums * sum_steps) == 0; };
    while (most > 1 &&
           !(meets(s.part.begin, most) && (s.part.end == steps() || meets(s.part.end, most)))) {
      --most;
    }
    return most;
  }

  // Rows that are summed at once; of a row apart as if it were the batch.
  Index sum_rows() const {
    const Index bytes = weight_bytes();
    const bool few = s.rows_apart || batch() <= kFewRows;
    if (few && bytes <= kSmallWeightBytes) return kSumRowsOfFew;
    return bytes >= kLargeWeightBytes ? kSumRowsOfLarge : kSumRows;
  }

  Plan plan(Split split, int threads) const {
    const bool few = batch() <= kFewRows;
    Plan p{};
    p.shape = s;
    p.threads = threads;
    p.split = split;
    p.slice_rows = slice_rows();
    p.rows_at_once = std::max<Index>(1, batch());
    const Index summed = s.sequence.dense() ? p.slice_rows : ceil_div(active(), slices());
    p.sum_steps = std::max<Index>(1, sum_rows() / std::max<Index>(1, summed));
    if (split == Split::slices) {
      const Index slices = std::max<Index>(1, most_rows_at_once() / p.slice_rows);
      p.rows_at_once = std::min(p.rows_at_once, slices * p.slice_rows);
    }
    p.block_steps = p.sum_steps;
    if (split != Split::pipeline && s.sequence.dense()) {
      // x, y, dy, dx, two of delta, two of packed inputs and states, what is saved, O_t twice and
      // packed: a row's.
      const Index units = 3 + s.cell.states + 2 * s.cell.deltas() + s.cell.saved;
      const Index row = (4 * s.inputs + units * s.hidden + 3 * s.outputs) * item_size;
      const Index room = machine.l2_bytes / 2 * (split == Split::slices ? 1 : threads);
      const Index sum = std::max<Index>(1, row * p.sum_steps * p.rows_at_once);
      p.block_steps *= sums_that_meet(p.sum_steps, std::clamp<Index>(room / sum, 1, kSumsOfBlock));
    }
    // A thread must have all rows of the block that it projects, and these be the whole batch.
    const bool by_rows = split == Split::slices || split == Split::rows;
    const bool whole = p.rows_at_once >= batch() && (s.sequence.dense() || slices() == 1);
    p.project_first = (few || streamed()) && (!by_rows || (threads == 1 && whole));
    p.packs_split = machine.packs_split;
    p.fetch_bytes = machine.fetch_bytes;
    p.near_k =
        machine.fetch_bytes / std::max<Index>(1, units_of_member(p) * s.cell.gates * item_size);
    p.cost = cost(p);
    return p;
  }

  // The cheapest of: a plan for one thread; and each split on as many threads as it has work for.
  Plan cheapest(const Plan& alone, Index threads) const {
    Plan best = alone;
    const auto consider = [&](Split split, Index members) {
      if (members < 2) return;
      const Plan plan = this->plan(split, static_cast<int>(members));
      if (plan.cost.total < best.cost.total) best = plan;
    };
    if (s.rows_apart) {  // each row's sums are one thread's
      consider(Split::slices, std::min(threads, batch()));
      return best;
    }
    // The other thread of a pipeline is at work on other blocks, which may be of another segment.
    const bool at_once = passes != Passes::both_in_segments && !s.in_parts();
    if (batch() <= kFewRows && at_once) consider(Split::pipeline, 2);
    for (Index members = threads; members > 1; members /= 2) {
      const Index panels = ceil_div(s.hidden, panel);
      const Index by_rows = std::min(members, ragged_slices() ? slices() : batch());
      if (!streamed() || members > panels) consider(this->by_rows(by_rows), by_rows);
      if (!ragged_slices()) consider(Split::hidden, std::min(members, panels));
    }
    return best;
  }
};

}  // namespace

Range share(Index n, Index grain, int i, int parts) {
  const Index pieces = (n + grain - 1) / grain;
  const Index begin = pieces * i / parts * grain;
  const Index end = pieces * (i + 1) / parts * grain;
  return {std::min(begin, n), std::min(end, n)};
}

Plan make_plan(const Shape& s, Index panel, Index item_size, int threads, Passes passes,
               const Machine& machine) {
  const Model model{s, panel, item_size, passes, machine};
  Plan best = model.plan(Split::slices, 1);
  if (threads > 1 && best.cost.total >= machine.start_seconds) best = model.cheapest(best, threads);
  if (!s.sequence.dense()) cut_ragged(best, model.slices(), model.sum_rows());
  return best;
}

Index Group::blocks() const {
  return begins.empty() ? ceil_div(sequence.steps, block_steps)
                        : static_cast<Index>(begins.size()) - 1;
}

Range Group::steps_of(Index block) const {
  if (!begins.empty()) {
    const auto i = static_cast<std::size_t>(block);
    return {begins[i], begins[i + 1]};
  }
  const Index first = block * block_steps;
  return {first, std::min(first + block_steps, sequence.steps)};
}

Index Plan::slices() const {
  return ragged.empty() ? ceil_div(shape.sequence.batch, slice_rows)
                        : static_cast<Index>(ragged.size());
}

Range Plan::slices_of(int member) const { return share(slices(), 1, member, threads); }

Index Plan::first_group_of(int member) const {
  if (split != Split::slices) return member > 0 ? 1 : 0;
  if (!ragged.empty()) return member < threads ? slices_of(member).begin : slices();
  Index groups = 0;
  for (int i = 0; i < member; ++i) groups += ceil_div(rows_of(i).size(), rows_at_once);
  return groups;
}

Group Plan::group(Range rows) const {
  if (!ragged.empty()) return group_of_slice(0);
  return {rows, {shape.sequence.steps, rows.size()}, block_steps, {}, 0};
}

Group Plan::group_of_slice(Index slice) const {
  const Slice& s = ragged[static_cast<std::size_t>(slice)];
  const Index steps = static_cast<Index>(s.offsets.size()) - 1;
  return {s.rows, {steps, s.rows.size(), s.offsets.data()}, 0, begins, slice};
}

Range Plan::blocks_of(Range steps) const {
  const Group all = group({0, shape.sequence.batch});
  if (all.begins.empty()) return {steps.begin / block_steps, ceil_div(steps.end, block_steps)};
  const auto at = [&](Index step) {
    return std::lower_bound(all.begins.begin(), all.begins.end(), step) - all.begins.begin();
  };
  return {at(steps.begin), at(steps.end)};
}

Index Plan::most_rows() const {
  if (ragged.empty()) return std::min(block_steps, shape.sequence.steps) * rows_at_once;
  Index most = 0;
  for (std::size_t i = 0; i < ragged.size(); ++i) {
    const Group group = group_of_slice(static_cast<Index>(i));
    for (Index block = 0; block < group.blocks(); ++block) {
      const Range steps = group.steps_of(block);
      most = std::max(most, group.sequence.row(steps.end) - group.sequence.row(steps.begin));
    }
  }
  return most;
}

Range Plan::rows_of(int member) const {
  const Index batch = shape.sequence.batch;
  const auto i = static_cast<std::size_t>(member);
  if (!row_begins.empty()) return {row_begins[i], row_begins[i + 1]};
  if (split == Split::slices) return share(batch, slice_rows, member, threads);
  return split == Split::rows ? share(batch, 1, member, threads) : Range{0, batch};
}

Range Plan::units_of(int member, Index panel) const {
  const Index hidden = shape.hidden;
  return split == Split::hidden ? share(hidden, panel, member, threads) : Range{0, hidden};
}

}  // namespace bptt
