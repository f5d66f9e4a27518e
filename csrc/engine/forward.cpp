#include "engine/forward.h"

#include <algorithm>

namespace bptt {

template <class T>
ForwardPass<T>::ForwardPass(const Call<T>& call, const Record<T>& record)
    : call_(call),
      sums_(call.problem, call.kernels),
      steps_(steps_of(call, sums_, record)),
      block_rows_(call.plan.most_steps() * call.problem.sequence.batch) {
  if (call.plan.project_first) projected_ = Buffer<T>(2 * block_rows_ * sums_.padded());
}

template <class T>
typename ForwardPass<T>::Steps ForwardPass<T>::steps_of(const Call<T>& call,
                                                        const Preactivations<T>& sums,
                                                        const Record<T>& record) {
  if (call.problem.cell.gated()) return GatedForward<T>(call, sums, record);
  return ElmanForward<T>(call, sums, record);
}

template <class T>
bool ForwardPass<T>::run(int member) {
  sums_.pack({member, call_.plan.threads});
  if (!call_.barrier.wait()) return false;
  const bool pipeline = call_.plan.split == Split::pipeline;
  const bool done = pipeline ? run_pipeline(member) : run_blocks(member);
  return done && call_.barrier.wait();
}

template <class T>
bool ForwardPass<T>::run_blocks(int member) {
  const Plan& plan = call_.plan;
  const Range mine = plan.rows_of(member);
  const Range units = plan.units_of(member, call_.kernels.product_width);
  for (Index first = mine.begin; first < mine.end; first += plan.rows_at_once) {
    const Range rows{first, std::min(first + plan.rows_at_once, mine.end)};
    for (Index block = 0; block < plan.blocks(); ++block) {
      if (plan.project_first) project(block, units);
      if (!recur(block, rows, units)) return false;
    }
  }
  return true;
}

// One member recurs through a block, while the other projects the inputs of the next.
template <class T>
bool ForwardPass<T>::run_pipeline(int member) {
  const Range rows{0, call_.problem.sequence.batch}, units{0, call_.problem.hidden};
  const Index blocks = call_.plan.blocks();
  for (Index block = -1; block < blocks; ++block) {
    if (call_.plan.recurs(member)) {
      if (block >= 0 && !recur(block, rows, units)) return false;
    } else if (block + 1 < blocks) {
      project(block + 1, units);
    }
    if (!call_.barrier.wait()) return false;
  }
  return true;
}

template <class T>
void ForwardPass<T>::project(Index block, Range units) {
  sums_.project(call_.plan.steps_of(block), units, projected(block));
}

template <class T>
T* ForwardPass<T>::projected(Index block) {
  return projected_.get() + block % 2 * block_rows_ * sums_.padded();
}

// Every step of a block, of some rows and units; false if interrupted.
template <class T>
bool ForwardPass<T>::recur(Index block, Range rows, Range units) {
  return std::visit([&](const auto& policy) { return recur(policy, block, rows, units); }, steps_);
}

template <class T>
template <class Policy>
bool ForwardPass<T>::recur(const Policy& policy, Index block, Range rows, Range units) {
  const Problem<T>& p = call_.problem;
  const Range steps = call_.plan.steps_of(block);
  const Index step_flops = 2 * rows.size() * units.size() * p.cell.gates * (p.inputs + p.hidden);
  const T* const projected = call_.plan.project_first ? this->projected(block) : nullptr;
  auto step = policy.at(steps.begin, projected, rows, units);
  for (Index t = steps.begin; t < steps.end; ++t) {
    policy.run(step);
    if (call_.plan.split == Split::hidden && !call_.barrier.wait()) return false;
    if (!call_.go_on(step_flops)) return false;
    if (t + 1 < steps.end) policy.advance(step, t + 1);
  }
  return true;
}

template class ForwardPass<float>;
template class ForwardPass<double>;

}  // namespace bptt
