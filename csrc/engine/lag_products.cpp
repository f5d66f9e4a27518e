#include "engine/lag_products.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "dispatch/dispatch.h"
#include "engine/block_inputs.h"
#include "engine/panels.h"
#include "engine/team.h"

namespace bptt {
namespace {

// Units whose products are summed together, whatever threads and vectors there are.
constexpr Index kUnitsOfSum = 16;

// Multiply-adds of a member that are worth waking it for.
constexpr Index kWorkOfMember = 1 << 20;

template <class T>
class Measuring {
 public:
  Measuring(const Problem<T>& problem, const Kernels<T>& kernels, const LagProducts<T>& asked,
            int members, Interrupt& interrupt)
      : problem_(problem),
        kernels_(kernels),
        asked_(asked),
        cell_(shape_of(problem.cell)),
        members_(members),
        interrupt_(interrupt),
        groups_((problem.hidden + kUnitsOfSum - 1) / kUnitsOfSum),
        strip_(problem.batch * kernels.lanes),
        plane_(round_up(problem.hidden, kernels.lanes) * problem.batch),
        deltas_(cell_.deltas() * plane_),
        sums_(asked.count * kLayerParams * cell_.gates * groups_ * kScalarProducts) {
    for (int param = 0; param < kLayerParams; ++param) {
      if (!asked.totals[param]) continue;
      terms_[param] = Buffer<T>(cell_.gates * problem.hidden * columns(param));
      rests_[param] = Buffer<T>(cell_.gates * problem.hidden * columns(param));
    }
    for (int member = 0; member < members; ++member) {
      inputs_.emplace_back(problem, kernels, asked.y, problem.batch, problem.batch);
    }
  }

  // One member's units; members never wait for each other.
  void run(int member) {
    const Range units = share(problem_.hidden, kUnitsOfSum, member, members_);
    if (units.size() <= 0) return;
    clear(rests_, units);
    clear(terms_, units);
    Index next = asked_.count - 1;
    for (Index t = 0; t < problem_.steps && next >= 0; ++t) {
      const bool wanted = asked_.lags[next] == problem_.steps - 1 - t;
      Block block{t, {t, t + 1}, {0, problem_.batch}};
      inputs_[static_cast<std::size_t>(member)].pack(block, 0, 1);
      copy_deltas(t, units);
      add_term(inputs_[static_cast<std::size_t>(member)], block, units, wanted ? terms_ : rests_);
      if (wanted) measure(next--, units);
      interrupt_.progress(2 * problem_.batch * units.size() * cell_.gates *
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
  Index columns(int param) const {
    return param == 0 ? problem_.inputs : param == 1 ? problem_.hidden : 1;
  }
  // Where a gate's unit begins in an array like the parameter.
  Index row(int param, Index gate, Index unit) const {
    return (gate * problem_.hidden + unit) * columns(param);
  }

  void clear(Buffer<T> (&arrays)[kLayerParams], Range units) {
    for (int param = 0; param < kLayerParams; ++param) {
      if (!asked_.totals[param]) continue;
      for (Index gate = 0; gate < cell_.gates; ++gate) {
        T* const begin = arrays[param].get() + row(param, gate, units.begin);
        std::fill_n(begin, units.size() * columns(param), T(0));
      }
    }
  }

  // da_t in strips, as `outer` reads it.
  void copy_deltas(Index t, Range units) {
    const Problem<T>& p = problem_;
    const Index lanes = kernels_.lanes;
    for (Index plane = 0; plane < cell_.deltas(); ++plane) {
      const T* const from = asked_.deltas + (plane * p.steps + t) * p.batch * p.hidden;
      T* const to = deltas_.get() + plane * plane_;
      for (Index unit = units.begin; unit < units.end; unit += lanes) {
        const Index width = std::min(lanes, p.hidden - unit);
        for (Index b = 0; b < p.batch; ++b) {
          T* const strip = to + unit / lanes * strip_ + b * lanes;
          std::fill_n(std::copy_n(from + b * p.hidden + unit, width, strip), lanes - width, T(0));
        }
      }
    }
  }

  Strips<const T> delta(Index plane) const {
    return {deltas_.get() + plane * plane_, strip_, kernels_.lanes};
  }

  void add_term(const BlockInputs<T>& inputs, const Block& block, Range units,
                Buffer<T> (&to)[kLayerParams]) {
    const Index t = block.steps.begin;
    const Operand<T> x = inputs.x(block, t, 0), previous = inputs.previous(block, t, 0);
    for (Index gate = 0; gate < cell_.gates; ++gate) {
      const Index recurrent = cell_.recurrent_delta(gate);
      add_product(delta(gate), x, units, 0, to[0].get() + row(0, gate, 0));
      add_product(delta(recurrent), previous, units, 1, to[1].get() + row(1, gate, 0));
      for (int param = 2; param < kLayerParams; ++param) {
        if (!asked_.totals[param]) continue;
        const Strips<const T> da = delta(param == 2 ? gate : recurrent);
        kernels_.column_sums({{1, problem_.batch},
                              da,
                              problem_.batch,
                              units.begin,
                              units.end,
                              {to[param].get() + row(param, gate, 0), nullptr}});
      }
    }
  }

  void add_product(const Strips<const T>& da, const Operand<T>& right, Range units, int param,
                   T* out) {
    const Index n = columns(param);
    kernels_.outer({{1, problem_.batch},
                    da,
                    problem_.batch,
                    units.begin,
                    units.end,
                    right.matrix,
                    right.first,
                    right.step,
                    n,
                    out,
                    n});
  }

  void measure(Index index, Range units) {
    for (int param = 0; param < kLayerParams; ++param) {
      if (!asked_.totals[param]) continue;
      for (Index gate = 0; gate < cell_.gates; ++gate) {
        for (Index unit = units.begin; unit < units.end; unit += kUnitsOfSum) {
          const Index at = row(param, gate, unit);
          const Index entry =
              ((index * kLayerParams + param) * cell_.gates + gate) * groups_ + unit / kUnitsOfSum;
          double* const sums = sums_.get() + entry * kScalarProducts;
          std::fill_n(sums, kScalarProducts, 0.0);
          kernels_.scalar_products({std::min(kUnitsOfSum, units.end - unit) * columns(param),
                                    terms_[param].get() + at, rests_[param].get() + at,
                                    asked_.totals[param] + at, sums});
        }
      }
    }
  }

  const Problem<T>& problem_;
  const Kernels<T>& kernels_;
  const LagProducts<T>& asked_;
  const CellShape cell_;
  const int members_;
  Interrupt& interrupt_;
  const Index groups_, strip_, plane_;
  Buffer<T> deltas_;     // (planes)(strips)(B, lanes) of one step
  Buffer<double> sums_;  // (lags, params, gates, groups, products)
  Buffer<T> terms_[kLayerParams], rests_[kLayerParams];
  std::vector<BlockInputs<T>> inputs_;  // of each member
};

}  // namespace

template <class T>
void lag_products(const Problem<T>& problem, const LagProducts<T>& asked, int threads,
                  Interrupt& interrupt) {
  const Kernels<T>& kernels = []() -> const Kernels<T>& {
    if constexpr (std::is_same_v<T, float>) return kernel_table().f32;
    else return kernel_table().f64;
  }();
  const Index work = problem.steps * problem.batch * shape_of(problem.cell).gates * problem.hidden *
                     (problem.inputs + problem.hidden);
  const Index most =
      std::max<Index>(1, std::min(work / kWorkOfMember, problem.hidden / kUnitsOfSum));
  const Scratch::Frame frame;
  Lease lease(static_cast<int>(std::min<Index>(threads, most)));
  Measuring<T> measuring(problem, kernels, asked, lease.size(), interrupt);
  auto run = [&](int member) { measuring.run(member); };
  lease.run(lease.size(), run);
  if (!interrupt.stopped()) measuring.reduce();
}

template void lag_products(const Problem<float>&, const LagProducts<float>&, int, Interrupt&);
template void lag_products(const Problem<double>&, const LagProducts<double>&, int, Interrupt&);

}  // namespace bptt
