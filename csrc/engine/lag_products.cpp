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
        strip_(problem.sequence.batch * kernels.lanes),
        plane_(round_up(problem.hidden, kernels.lanes) * problem.sequence.batch),
        deltas_(cell_.deltas() * plane_),
        sums_(asked.count * kLayerParams * cell_.gates * groups_ * kScalarProducts),
        terms_(members * kUnitsOfTerm * widest()) {
    for (int member = 0; member < members; ++member) {
      inputs_.emplace_back(problem, kernels, asked.y, problem.sequence.batch,
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
    Index next = asked_.count - 1;
    for (Index t = 0; t < problem_.sequence.steps; ++t) {
      const bool wanted = next >= 0 && asked_.lags[next] == problem_.sequence.steps - 1 - t;
      const Block block = block_of(t);
      inputs.pack(block, {0, 1});
      copy_deltas(t, units);
      for_each_sum(units, wanted, [&](Range some, int param, Index gate) {
        T* const rest = asked_.sums[param] + row(param, gate, some.begin);
        add_term(inputs, t, some, param, gate, wanted ? term : rest);
        if (wanted) measure(next, some, param, gate, term);
      });
      if (wanted) --next;
      interrupt_.progress(2 * problem_.sequence.batch * units.size() * cell_.gates *
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
  Block block_of(Index t) const {
    const Index batch = problem_.sequence.batch;
    return {{{0, batch}, {problem_.sequence.steps, batch}, 1, {}, 0}, t};
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
    for_each_sum(units, false, [&](Range some, int param, Index gate) {
      T* const begin = asked_.sums[param] + row(param, gate, some.begin);
      std::fill_n(begin, some.size() * columns(param), T(0));
    });
  }

  // f for each parameter and gate: of all units at once, or of few, so that their term stays in the
  // first-level cache until it is measured.
  template <class F>
  void for_each_sum(Range units, bool few, F&& f) const {
    const Index step = few ? kUnitsOfTerm : units.size();
    for (int param = 0; param < kLayerParams; ++param) {
      if (!asked_.totals[param]) continue;
      for (Index gate = 0; gate < cell_.gates; ++gate) {
        for (Index unit = units.begin; unit < units.end; unit += step) {
          f(Range{unit, std::min(unit + step, units.end)}, param, gate);
        }
      }
    }
  }

  // da_t in strips, as `outer` reads it.
  void copy_deltas(Index t, Range units) {
    const Problem<T>& p = problem_;
    const Index lanes = kernels_.lanes;
    for (Index plane = 0; plane < cell_.deltas(); ++plane) {
      const T* const from =
          asked_.deltas + (plane * p.sequence.rows() + p.sequence.row(t)) * p.hidden;
      T* const to = deltas_.get() + plane * plane_;
      for (Index unit = units.begin; unit < units.end; unit += lanes) {
        const Index width = std::min(lanes, p.hidden - unit);
        for (Index b = 0; b < p.sequence.batch; ++b) {
          T* const strip = to + unit / lanes * strip_ + b * lanes;
          std::fill_n(std::copy_n(from + b * p.hidden + unit, width, strip), lanes - width, T(0));
        }
      }
    }
  }

  Strips<const T> delta(Index plane) const {
    return {deltas_.get() + plane * plane_, strip_, kernels_.lanes};
  }

  // Adds the term of step t, some units of a parameter's gate, to `out`: a row for each unit.
  void add_term(const BlockInputs<T>& inputs, Index t, Range units, int param, Index gate, T* out) {
    const Block block = block_of(t);
    const bool of_inputs = param == 0 || param == 2;
    Strips<const T> da = delta(of_inputs ? gate : cell_.recurrent_delta(gate));
    da.data += units.begin / kernels_.lanes * strip_;
    const Index batch = problem_.sequence.batch, n = columns(param);
    if (param >= 2) {
      kernels_.column_sums({{1, batch}, da, batch, 0, units.size(), {out, nullptr}});
      return;
    }
    const Operand<T> right = of_inputs ? inputs.x(block, t, 0) : inputs.previous(block, t, 0);
    kernels_.outer(
        {{1, batch}, da, batch, 0, units.size(), right.matrix, right.first, right.step, n, out, n});
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
  const Index groups_, strip_, plane_;
  Buffer<T> deltas_;                    // (planes)(strips)(B, lanes) of one step
  Buffer<double> sums_;                 // (lags, params, gates, groups, products)
  Buffer<T> terms_;                     // of a few units, for each member
  std::vector<BlockInputs<T>> inputs_;  // of each member
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
