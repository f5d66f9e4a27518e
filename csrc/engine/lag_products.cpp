#include "engine/lag_products.h"

#include <algorithm>
#include <vector>

#include "dispatch/dispatch.h"
#include "engine/block_inputs.h"
#include "engine/panels.h"
#include "engine/team.h"

namespace bptt {
namespace {

// Units whose products are summed together, whatever threads and vectors there are.
constexpr Index kUnitsOfSum = 16;

// Units whose term is computed at once, and measured while it is in the cache.
constexpr Index kUnitsOfTerm = 64;

// Rows of the steps that are taken together: through all of them some units' rest and total stay in
// the second-level cache, beside what the steps read.
constexpr Index kRowsOfBlock = 128;

template <class T>
class Measuring {
 public:
  Measuring(const Problem<T>& problem, const Kernels<T>& kernels, const LagProducts<T>& asked,
            int members, Interrupt& interrupt)
      : problem_(problem),
        kernels_(kernels),
        asked_(asked),
        cell_(problem.cell),
        members_(members),
        interrupt_(interrupt),
        groups_((problem.hidden + kUnitsOfSum - 1) / kUnitsOfSum),
        at_once_(std::clamp<Index>(kRowsOfBlock / std::max<Index>(1, problem.sequence.batch), 1,
                                   std::max<Index>(1, problem.sequence.steps))),
        strip_(at_once_ * problem.sequence.batch * kernels.lanes),
        plane_(round_up(problem.hidden, kernels.lanes) / kernels.lanes * strip_),
        deltas_(cell_.deltas() * plane_),
        sums_(asked.count * kLayerParams * cell_.gates * groups_ * kScalarProducts),
        terms_(members * kUnitsOfTerm * widest()) {
    Index next = asked.count - 1;
    for (Index first = 0; first < problem.sequence.steps; first += at_once_) {
      parts_.push_back(parts_of(block_of(first).steps, next));
    }
    for (int member = 0; member < members; ++member) {
      inputs_.emplace_back(problem, kernels, asked.y, at_once_ * problem.sequence.batch,
                           problem.sequence.batch, InputsRead{true, true, false},
                           this_machine().packs_split);
    }
  }

  // One member's units; members never wait for each other.
  void run(int member) {
    const Range units = share(problem_.hidden, kUnitsOfSum, member, members_);
    if (units.size() <= 0) return;
    clear_sums(units);
    T* const term = terms_.get() + member * kUnitsOfTerm * widest();
    std::fill_n(term, kUnitsOfTerm * widest(), T(0));
    BlockInputs<T>& inputs = inputs_[static_cast<std::size_t>(member)];
    for (Index first = 0; first < problem_.sequence.steps; first += at_once_) {
      const Block block = block_of(first);
      const std::vector<Part>& parts = parts_[static_cast<std::size_t>(block.number)];
      inputs.pack(block, {0, 1});
      copy_deltas(block, units);
      for_each_sum(units, [&](Range some, int param, Index gate) {
        T* const rest = asked_.sums[param] + row(param, gate, some.begin);
        for (const Part& part : parts) {
          const bool wanted = part.index >= 0;
          add_term(inputs, block, part.steps, some, param, gate, wanted ? term : rest);
          if (wanted) measure(part.index, some, param, gate, term);
        }
      });
      interrupt_.progress(2 * block.rows() * units.size() * cell_.gates *
                          (problem_.inputs + problem_.hidden));
      if (interrupt_.stopped()) return;
    }
  }

  // The sums of all groups, in their order.
  void reduce() {
    const Index entries = cell_.gates * groups_;
    for (Index i = 0; i < asked_.count * kLayerParams; ++i) {
      double* const out = asked_.products + i * kScalarProducts;
      std::fill_n(out, kScalarProducts, 0.0);
      if (!asked_.totals[i % kLayerParams]) continue;
      const double* from = sums_.get() + i * entries * kScalarProducts;
      for (Index entry = 0; entry < entries; ++entry) {
        for (int k = 0; k < kScalarProducts; ++k) out[k] += *from++;
      }
    }
  }

 private:
  // Steps whose terms are added up: one whose lag is asked for, of so much an index, or some that
  // are added to the rest as they are, and have none.
  struct Part {
    Range steps;
    Index index;
  };

  Block block_of(Index first) const {
    const Index batch = problem_.sequence.batch;
    return {{{0, batch}, {problem_.sequence.steps, batch}, at_once_, {}, 0}, first / at_once_};
  }

  // `next` is the index of the next lag that is asked for. Before step 0 there is another array
  // than before the others.
  std::vector<Part> parts_of(Range steps, Index& next) const {
    std::vector<Part> parts;
    for (Index t = steps.begin; t < steps.end; ++t) {
      const bool wanted = next >= 0 && asked_.lags[next] == problem_.sequence.steps - 1 - t;
      const bool joins = t > steps.begin && t > 1 && !wanted && parts.back().index < 0;
      if (joins) parts.back().steps.end = t + 1;
      else parts.push_back({{t, t + 1}, wanted ? next-- : -1});
    }
    return parts;
  }

  Index columns(int param) const {
    return param == 0 ? problem_.inputs : param == 1 ? problem_.hidden : 1;
  }
  // Where a gate's unit begins in an array like the parameter.
  Index row(int param, Index gate, Index unit) const {
    return (gate * problem_.hidden + unit) * columns(param);
  }

  Index widest() const { return std::max({problem_.inputs, problem_.hidden, Index{1}}); }

  void clear_sums(Range units) {
    for_each_sum(units, [&](Range some, int param, Index gate) {
      T* const begin = asked_.sums[param] + row(param, gate, some.begin);
      std::fill_n(begin, some.size() * columns(param), T(0));
    });
  }

  // f for each parameter and gate, some units at a time.
  template <class F>
  void for_each_sum(Range units, F&& f) const {
    for (int param = 0; param < kLayerParams; ++param) {
      if (!asked_.totals[param]) continue;
      for (Index gate = 0; gate < cell_.gates; ++gate) {
        for (Index unit = units.begin; unit < units.end; unit += kUnitsOfTerm) {
          f(Range{unit, std::min(unit + kUnitsOfTerm, units.end)}, param, gate);
        }
      }
    }
  }

  // da of the block in strips, as `outer` reads it: panels one vector wide.
  void copy_deltas(const Block& block, Range units) {
    const Problem<T>& p = problem_;
    const Index lanes = kernels_.lanes, first = p.sequence.row(block.steps.begin);
    for (Index plane = 0; plane < cell_.deltas(); ++plane) {
      const T* const from = asked_.deltas + (plane * p.sequence.rows() + first) * p.hidden;
      T* const to = deltas_.get() + plane * plane_ + units.begin / lanes * strip_;
      kernels_.pack({from + units.begin, 1, p.hidden, units.size(), block.rows(), lanes, to,
                     strip_ / lanes, 0});
    }
  }

  Strips<const T> delta(Index plane) const {
    return {deltas_.get() + plane * plane_, strip_, kernels_.lanes};
  }

  // Adds the terms of some steps, some units of a parameter's gate, to `out`: a row for each unit.
  void add_term(const BlockInputs<T>& inputs, const Block& block, Range steps, Range units,
                int param, Index gate, T* out) {
    const bool of_inputs = param == 0 || param == 2;
    const Index batch = problem_.sequence.batch, n = columns(param);
    Strips<const T> da = delta(of_inputs ? gate : cell_.recurrent_delta(gate));
    da.data += units.begin / kernels_.lanes * strip_ + block.row_of(steps.begin) * kernels_.lanes;
    const RowGroups sum{steps.size(), batch};
    if (param >= 2) {
      kernels_.column_sums({sum, da, batch, 0, units.size(), {out, nullptr}});
      return;
    }
    const Operand<T> right =
        of_inputs ? inputs.x(block, steps.begin, 0) : inputs.previous(block, steps.begin, 0);
    kernels_.outer(
        {sum, da, batch, 0, units.size(), right.matrix, right.first, right.step, n, out, n});
  }

  void measure(Index index, Range units, int param, Index gate, T* term) {
    const Index first = ((index * kLayerParams + param) * cell_.gates + gate) * groups_;
    for (Index unit = units.begin; unit < units.end; unit += kUnitsOfSum) {
      const Index at = row(param, gate, unit);
      double* const sums = sums_.get() + (first + unit / kUnitsOfSum) * kScalarProducts;
      std::fill_n(sums, kScalarProducts, 0.0);
      kernels_.scalar_products({std::min(kUnitsOfSum, units.end - unit) * columns(param),
                                term + (unit - units.begin) * columns(param),
                                asked_.sums[param] + at, asked_.totals[param] + at, sums});
    }
  }

  const Problem<T>& problem_;
  const Kernels<T>& kernels_;
  const LagProducts<T>& asked_;
  const CellShape cell_;
  const int members_;
  Interrupt& interrupt_;
  const Index groups_, at_once_, strip_, plane_;
  Buffer<T> deltas_;                      // (planes)(strips)(rows, lanes) of a block
  Buffer<double> sums_;                   // (lags, params, gates, groups, products)
  Buffer<T> terms_;                       // of a few units, for each member
  std::vector<std::vector<Part>> parts_;  // of each block: no member may run out of memory
  std::vector<BlockInputs<T>> inputs_;    // of each member
};

}  // namespace

template <class T>
void lag_products(const Problem<T>& problem, const LagProducts<T>& asked,
                  const Execution& execution, Interrupt& interrupt) {
  const Kernels<T>& kernels = kernel_table().of<T>();
  const Index work = problem.sequence.rows() * problem.cell.gates * problem.hidden *
                     (problem.inputs + problem.hidden);
  const Index most =
      std::max<Index>(1, std::min(work / kWorkOfMember, problem.hidden / kUnitsOfSum));
  const Scratch::Frame frame;
  Lease lease(static_cast<int>(std::min<Index>(execution.threads, most)),
              execution.float_control());
  Measuring<T> measuring(problem, kernels, asked, lease.size(), interrupt);
  auto run = [&](int member) { measuring.run(member); };
  lease.run(lease.size(), run);
  if (!interrupt.stopped()) measuring.reduce();
}

template void lag_products(const Problem<float>&, const LagProducts<float>&, const Execution&,
                           Interrupt&);
template void lag_products(const Problem<double>&, const LagProducts<double>&, const Execution&,
                           Interrupt&);

}  // namespace bptt
