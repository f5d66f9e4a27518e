#include "engine/forward.h"

#include <algorithm>

namespace bptt {

namespace {

// Panels of weights, each of which reads x_t once.
constexpr Index kFewPanels = 2;

// Of the weights that a step multiplies by.
template <class T>
Index columns_of_step(const Call<T>& call) {
  return call.problem.hidden + (call.plan.project_first ? 0 : call.problem.inputs);
}

}  // namespace

template <class T>
ForwardPass<T>::ForwardPass(const Call<T>& call, const Record<T>& record)
    : ForwardPass(
          call, record,
          Preactivations<T>(call.problem, call.kernels, call.plan.far(columns_of_step(call)))) {}

template <class T>
ForwardPass<T>::ForwardPass(const Call<T>& call, const Record<T>& record,
                            const Preactivations<T>& packed)
    : call_(call), sums_(packed), block_rows_(call.plan.most_rows()) {
  const Problem<T>& p = call.problem;
  const bool few = p.cell.gates * p.hidden <= kFewPanels * call.kernels.product_width;
  using Read = typename BlockRows<T>::Read;
  const Read reads = few && !call.plan.project_first ? Read::once : Read::often;
  // Members that do not meet between blocks have copies of their own.
  const bool apart = call.plan.split == Split::slices || call.plan.split == Split::rows;
  const int copies = apart && p.places.moved() ? call.plan.threads : 1;
  for (int i = 0; i < copies; ++i) x_.emplace_back(p, p.x, p.inputs, block_rows_, reads);
  if (call.plan.project_first) projected_ = Buffer<T>(2 * block_rows_ * sums_.padded());
  bind(record);
}

template <class T>
void ForwardPass<T>::bind(const Record<T>& record) {
  shown_ = record.shown;
  if (call_.problem.cell.gated()) {
    steps_.emplace(std::in_place_type<GatedForward<T>>, call_, sums_, record);
  } else {
    steps_.emplace(std::in_place_type<ElmanForward<T>>, call_, sums_, record);
  }
}

template <class T>
bool ForwardPass<T>::pack(int member) {
  sums_.pack({member, call_.plan.threads});
  const Problem<T>& p = call_.problem;
  if (shown_) clear_padding(p.places, shown_, p.hidden, {member, call_.plan.threads});
  return call_.barrier.wait();
}

template <class T>
bool ForwardPass<T>::run(int member) {
  if (call_.plan.split == Split::pipeline) return run_pipeline(member) && call_.barrier.wait();
  return run(member, {0, call_.plan.blocks()});
}

template <class T>
bool ForwardPass<T>::run(int member, Range blocks) {
  const Plan& plan = call_.plan;
  const Range units = plan.units_of(member, call_.kernels.product_width);
  BlockRows<T>& x = inputs_of(member);
  const auto through = [&](const Group& group, Range rows) {
    for (Index number = blocks.begin; number < blocks.end; ++number) {
      const Block block(group, number);
      if (x.copies() && !copy_inputs(x, block, rows, member)) return false;
      if (plan.project_first) project(x, block, units);
      if (!recur(x, block, rows, units)) return false;
    }
    return true;
  };
  return for_each_group(plan, member, through) && call_.barrier.wait();
}

// One member recurs through a block, while the other projects the inputs of the next.
template <class T>
bool ForwardPass<T>::run_pipeline(int member) {
  const Range rows{0, call_.problem.sequence.batch}, units{0, call_.problem.hidden};
  const Group group = call_.plan.group(rows);
  const Index blocks = group.blocks();
  BlockRows<T>& x = inputs_of(member);
  for (Index number = -1; number < blocks; ++number) {
    if (call_.plan.recurs(member)) {
      if (number >= 0 && !recur(x, Block(group, number), rows, units)) return false;
    } else if (number + 1 < blocks) {
      const Block block(group, number + 1);
      x.copy(block, Member{0, 1});
      project(x, block, units);
    }
    if (!call_.barrier.wait()) return false;
  }
  return true;
}

template <class T>
BlockRows<T>& ForwardPass<T>::inputs_of(int member) {
  return x_[x_.size() > 1 ? static_cast<std::size_t>(member) : 0];
}

// This member's part; where all read all rows, they meet.
template <class T>
bool ForwardPass<T>::copy_inputs(BlockRows<T>& x, const Block& block, Range rows, int member) {
  if (call_.plan.split != Split::hidden) {
    x.copy(block, rows);
    return true;
  }
  x.copy(block, Member{member, call_.plan.threads});
  return call_.barrier.wait();
}

template <class T>
void ForwardPass<T>::project(const BlockRows<T>& x, const Block& block, Range units) {
  const T* const first = x.at(block, block.steps.begin, block.batch.begin);
  sums_.project(first, block.rows(), units, projected(block.number));
}

template <class T>
T* ForwardPass<T>::projected(Index block) {
  return projected_.get() + block % 2 * block_rows_ * sums_.padded();
}

// Every step of a block, of some rows and units; false if interrupted.
template <class T>
bool ForwardPass<T>::recur(const BlockRows<T>& x, const Block& block, Range rows, Range units) {
  return std::visit([&](const auto& policy) { return recur(policy, x, block, rows, units); },
                    *steps_);
}

template <class T>
template <class Policy>
bool ForwardPass<T>::recur(const Policy& policy, const BlockRows<T>& x, const Block& block,
                           Range rows, Range units) {
  const Problem<T>& p = call_.problem;
  const Range steps = block.steps;
  const Index row_flops = 2 * units.size() * p.cell.gates * (p.inputs + p.hidden);
  const T* const projected = call_.plan.project_first ? this->projected(block.number) : nullptr;
  Range active = p.sequence.active(steps.begin, rows);
  if (active.size() == 0) return true;  // this member's rows have ended
  auto step = policy.at(steps.begin, x.rows(block, steps.begin, rows.begin, call_.kernels.lanes),
                        projected, active, units);
  for (Index t = steps.begin; t < steps.end; ++t) {
    policy.run(step);
    if (call_.plan.split == Split::hidden && !call_.barrier.wait()) return false;
    if (!call_.go_on(active.size() * row_flops)) return false;
    if (t + 1 == steps.end) break;
    active = p.sequence.active(t + 1, rows);
    if (active.size() == 0) break;
    policy.advance(step, t + 1, projected ? nullptr : x.at(block, t + 1, rows.begin), active);
  }
  return true;
}

template class ForwardPass<float>;
template class ForwardPass<double>;

}  // namespace bptt
