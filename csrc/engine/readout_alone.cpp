#include "engine/readout_alone.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "dispatch/dispatch.h"
#include "engine/readout.h"
#include "engine/team.h"

namespace bptt {
namespace {

// Rows whose outputs are computed between two questions for an interrupt.
constexpr Index kRowsBetweenQuestions = 256;

int members_for(Index work, int threads) {
  return static_cast<int>(std::clamp<Index>(work / kWorkOfMember, 1, threads));
}

// The layer up to its last step with a loss, for the plan of `value_and_grad`.
template <class T>
Problem<T> up_to_loss(const Problem<T>& layer, const Objective<T>& objective) {
  Problem<T> p = layer;
  if (objective.step >= 0) p.sequence.steps = objective.step + 1;
  p.outputs = objective.outputs;
  return p;
}

// Its states and the readout: without inputs, and no gate takes them.
template <class T>
Problem<T> states_alone(const Problem<T>& layer) {
  Problem<T> p = layer;
  p.inputs = 0;
  p.cell = {0, 1, 0, false};
  return p;
}

// Members that have slices of the batch each walk through time alone; fewer slices than members
// are read out by all of them together, block by block.
template <class T>
class ReadoutPass {
 public:
  ReadoutPass(const Call<T>& call, const T* y, const Objective<T>& objective,
              const ReadoutGradients<T>& gradients)
      : call_(call),
        y_(y),
        objective_(objective),
        dy_(gradients.dy),
        alone_(1, call.interrupt),
        weights_(objective, call.kernels, call.problem.hidden),
        slices_(call,
                {nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, gradients.w_ho,
                 gradients.b_o},
                false) {
    const Index block_rows = call.plan.most_rows();
    for (int i = 0; i < (own_slices() ? call.plan.threads : 1); ++i) {
      walks_.push_back(std::make_unique<Walk>(call, y, objective, weights_, block_rows));
    }
  }

  // One member's part; all members call it at once. It ends early if interrupted.
  void run(int index) {
    const Member member{index, call_.barrier.size()};
    slices_.clear(member);
    weights_.pack(member);
    if (!call_.barrier.wait()) return;
    const bool done = own_slices()
                          ? walk(*walks_[static_cast<std::size_t>(index)], index, {0, 1}, alone_)
                          : walk(*walks_[0], 0, member, call_.barrier);
    if (done && call_.barrier.wait()) slices_.reduce(member);
  }

  // Once all members have run.
  double loss() const { return slices_.loss(); }

 private:
  // The scratch of those who walk through time together.
  struct Walk {
    Walk(const Call<T>& call, const T* y, const Objective<T>& objective,
         const ReadoutWeights<T>& weights, Index block_rows)
        : readout(call, objective, weights, block_rows, true),
          states(call.problem, call.kernels, y, block_rows, call.plan.rows_at_once,
                 {false, false, true}, call.plan.packs_split) {}

    Readout<T> readout;
    BlockInputs<T> states;
  };

  bool own_slices() const { return call_.plan.threads == call_.barrier.size(); }

  // The groups of rows that are a member's, back through time; false if interrupted.
  bool walk(Walk& walk, int groups_of, Member member, Barrier& barrier) {
    return for_each_group(call_.plan, groups_of, [&](const Group& group, Range) {
      for (Index number = group.blocks() - 1; number >= 0; --number) {
        const Block block(group, number);
        if (with_loss(block.steps).size() <= 0) continue;
        if (!read_block(walk, block, member, barrier)) return false;
      }
      return true;
    });
  }

  Range with_loss(Range steps) const {
    const Index step = objective_.step;
    return step < 0 ? steps : Range{std::max(steps.begin, step), std::min(steps.end, step + 1)};
  }

  // What the sums read is packed anew once all have met after the next block's readout; so nobody
  // waits for the sums of others.
  bool read_block(Walk& walk, const Block& block, Member member, Barrier& barrier) {
    walk.readout.run(block, y_, member);
    if (!barrier.wait()) return false;
    if (member.index == 0) sum_losses(walk.readout, block);
    copy_dy(walk.readout, block, member);
    walk.states.pack(block, member);
    walk.readout.pack_gradient(block, member);
    if (!barrier.wait()) return false;
    for_each_sum(call_.plan, block, [&](Index slice, Range batch, Range steps) {
      walk.readout.add_gradients(block, batch, steps, walk.states, slices_.of(slice), member);
    });
    const Index products = 3 * block.rows() * call_.problem.hidden * objective_.outputs;
    return call_.go_on(2 * products / member.count);
  }

  void sum_losses(const Readout<T>& readout, const Block& block) {
    for_each_sum(call_.plan, block, [&](Index slice, Range batch, Range steps) {
      readout.sum_losses(block, batch, steps, slices_.loss_of(slice));
    });
  }

  void copy_dy(const Readout<T>& readout, const Block& block, Member member) const {
    const Problem<T>& p = call_.problem;
    const Index first = p.sequence.row(std::max<Index>(objective_.step, 0));
    for (Index t = block.steps.begin; t < block.steps.end; ++t) {
      const Strips<const T> dy = readout.dy(block, t);
      if (!dy.data) continue;
      const Range rows = member.share(block.row_of(t + 1) - block.row_of(t), kRowGrain);
      T* const out = dy_ + (p.sequence.row(t) - first + block.batch.begin) * p.hidden;
      for (Index row = rows.begin; row < rows.end; ++row) {
        std::copy_n(dy.data + row * dy.row_stride, p.hidden, out + row * p.hidden);
      }
    }
  }

  const Call<T>& call_;
  const T* const y_;
  const Objective<T>& objective_;
  T* const dy_;
  Barrier alone_;  // where nobody is waited for
  ReadoutWeights<T> weights_;
  SliceGradients<T> slices_;
  std::vector<std::unique_ptr<Walk>> walks_;  // of all members, or of each
};

}  // namespace

template <class T>
void read_out(const Outputs<T>& asked, const Execution& execution, Interrupt& interrupt) {
  const Kernels<T>& kernels = kernel_table().of<T>();
  const Index hidden = asked.hidden, outputs = asked.outputs, lanes = kernels.lanes;
  const Scratch::Frame frame;
  Lease lease(members_for(asked.rows * hidden * outputs, execution.threads),
              execution.float_control());
  Barrier barrier(lease.size(), interrupt);
  Panels<T> w_ho(kernels, kernels.product_width, outputs, hidden);
  Buffer<T> bias(round_up(outputs, lanes));
  auto run = [&](int index) {
    const Member member{index, lease.size()};
    w_ho.pack({asked.w_ho, hidden, 1, hidden}, 0, member);
    if (index == 0) {
      for (Index i = 0; i < outputs; ++i) bias.get()[i] = asked.b_o ? asked.b_o[i] : T(0);
    }
    if (!barrier.wait()) return;
    const Range mine = member.share(asked.rows, kRowGrain);
    for (Index row = mine.begin; row < mine.end && !interrupt.stopped();
         row += kRowsBetweenQuestions) {
      const Index rows = std::min(kRowsBetweenQuestions, mine.end - row);
      kernels.product({rows,
                       outputs,
                       0,
                       outputs,
                       {bias.get(), lanes, 0},
                       {{{asked.y + row * hidden, lanes, hidden}, hidden, w_ho.get()}, {}},
                       {asked.o + row * outputs, lanes, outputs}});
      interrupt.progress(2 * rows * hidden * outputs);
    }
  };
  lease.run(lease.size(), run);
}

template <class T>
double readout_gradient(const Problem<T>& layer, const T* y, const Objective<T>& objective,
                        const ReadoutGradients<T>& gradients, const Execution& execution,
                        Interrupt& interrupt) {
  const Kernels<T>& kernels = kernel_table().of<T>();
  const Problem<T> whole = up_to_loss(layer, objective), problem = states_alone(whole);
  const Index steps = objective.step < 0 ? whole.sequence.steps : 1;
  const Index work = 3 * steps * whole.sequence.batch * whole.hidden * whole.outputs;
  const Scratch::Frame frame;
  Lease lease(members_for(work, execution.threads), execution.float_control());
  // The order of sums is that of a plan for any number of threads: here for those that have slices
  // of their own, or for one whose work all share.
  Plan plan = make_plan(whole, kernels.product_width, sizeof(T), 1);
  if (plan.slices() >= lease.size()) plan.threads = lease.size();
  Barrier barrier(lease.size(), interrupt);
  const Call<T> call{problem, kernels, plan, barrier, interrupt};
  ReadoutPass<T> pass(call, y, objective, gradients);
  auto run = [&](int member) { pass.run(member); };
  lease.run(lease.size(), run);
  return pass.loss() * objective.scale;
}

#define BPTT_INSTANTIATE(T)                                                             \
  template void read_out<T>(const Outputs<T>&, const Execution&, Interrupt&);           \
  template double readout_gradient<T>(const Problem<T>&, const T*, const Objective<T>&, \
                                      const ReadoutGradients<T>&, const Execution&, Interrupt&);
BPTT_INSTANTIATE(float)
BPTT_INSTANTIATE(double)
#undef BPTT_INSTANTIATE

}  // namespace bptt
