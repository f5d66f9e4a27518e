#include "engine/forward.h"

#include <algorithm>

namespace bptt {

template <class T>
ForwardPass<T>::ForwardPass(const Problem<T>& problem, const Kernels<T>& kernels, const Plan& plan,
                            const Record<T>& record, Barrier& barrier, Interrupt& interrupt)
    : problem_(problem),
      kernels_(kernels),
      plan_(plan),
      shape_{problem.steps, problem.batch, problem.inputs, problem.hidden},
      cell_(shape_of(problem.cell)),
      record_(record),
      barrier_(barrier),
      interrupt_(interrupt),
      padded_sums_(cell_.gates * round_up(problem.hidden, kernels.lanes)),
      block_rows_(std::min(plan.block_steps, problem.steps) * problem.batch),
      blocks_((problem.steps + plan.block_steps - 1) / plan.block_steps),
      w_ih_(kernels, kernels.product_width, problem.hidden, problem.inputs, cell_.gates),
      w_hh_(kernels, kernels.product_width, problem.hidden, problem.hidden, cell_.gates),
      bias_((cell_.apart ? 2 : 1) * padded_sums_) {
  if (plan.project_first) projected_ = Buffer<T>(2 * block_rows_ * padded_sums_);
  if (cell_.gated()) sums_ = Buffer<T>((cell_.apart ? 2 : 1) * problem.batch * padded_sums_);
}

template <class T>
bool ForwardPass<T>::run(int member) {
  pack_weights(member);
  if (!barrier_.wait()) return false;
  const bool done = plan_.split == Split::pipeline ? run_pipeline(member) : run_blocks(member);
  return done && barrier_.wait();
}

template <class T>
void ForwardPass<T>::pack_weights(int member) {
  const Problem<T>& p = problem_;
  w_ih_.pack({p.w_ih, p.inputs, 1, p.inputs}, 0, member, plan_.threads);
  w_hh_.pack({p.w_hh, p.hidden, 1, p.hidden}, 0, member, plan_.threads);
  if (member > 0) return;
  const Index lanes = kernels_.lanes;
  T *const b_ih = bias_.get(), *const b_hh = cell_.apart ? b_ih + padded_sums_ : b_ih;
  std::fill_n(b_ih, (cell_.apart ? 2 : 1) * padded_sums_, T(0));
  for (Index g = 0; g < cell_.gates; ++g) {
    for (Index h = 0; h < p.hidden; ++h) {
      const Index sum = (h / lanes * cell_.gates + g) * lanes + h % lanes;
      if (p.b_ih) b_ih[sum] = p.b_ih[g * p.hidden + h];
      if (p.b_hh) b_hh[sum] += p.b_hh[g * p.hidden + h];
    }
  }
}

template <class T>
bool ForwardPass<T>::run_blocks(int member) {
  const Range mine =
      plan_.split == Split::rows ? plan_.rows_of(member, shape_) : Range{0, problem_.batch};
  const Range units = plan_.units_of(member, shape_, kernels_.product_width);
  for (Index first = mine.begin; first < mine.end; first += plan_.rows_at_once) {
    const Range rows{first, std::min(first + plan_.rows_at_once, mine.end)};
    for (Index number = 0; number < blocks_; ++number) {
      if (plan_.project_first) project(number, units);
      if (!recur(number, rows, units)) return false;
    }
  }
  return true;
}

// One member recurs through a block, while the other projects the inputs of the next.
template <class T>
bool ForwardPass<T>::run_pipeline(int member) {
  const Range rows{0, problem_.batch}, units{0, problem_.hidden};
  for (Index number = -1; number < blocks_; ++number) {
    if (plan_.recurs(member)) {
      if (number >= 0 && !recur(number, rows, units)) return false;
    } else if (number + 1 < blocks_) {
      project(number + 1, units);
    }
    if (!barrier_.wait()) return false;
  }
  return true;
}

// The steps of a block.
template <class T>
Range ForwardPass<T>::block_at(Index number) const {
  const Index first = number * plan_.block_steps;
  return {first, std::min(first + plan_.block_steps, problem_.steps)};
}

template <class T>
T* ForwardPass<T>::projected(Index number) {
  return projected_.get() + number % 2 * block_rows_ * padded_sums_;
}

// The sums of some units: of all their gates.
template <class T>
Range ForwardPass<T>::sums_of(Range units) const {
  const bool last = units.end == problem_.hidden;
  return {units.begin * cell_.gates, last ? padded_sums_ : units.end * cell_.gates};
}

// Every step of a block, of some rows and units; false if interrupted.
template <class T>
bool ForwardPass<T>::recur(Index number, Range rows, Range units) {
  const Problem<T>& p = problem_;
  const Range block = block_at(number);
  const Index step_flops = 2 * rows.size() * units.size() * cell_.gates * (p.inputs + p.hidden);
  Step step = step_at(block.begin, plan_.project_first ? projected(number) : nullptr, rows, units);
  for (Index t = block.begin; t < block.end; ++t) {
    run_step(step);
    if (plan_.split == Split::hidden && !barrier_.wait()) return false;
    interrupt_.progress(step_flops);
    if (interrupt_.stopped()) return false;
    advance(step, t + 1);
  }
  return true;
}

// b + W_x x_t for the steps of a block, of this member's units.
template <class T>
void ForwardPass<T>::project(Index number, Range units) {
  const Problem<T>& p = problem_;
  const Index lanes = kernels_.lanes;
  const Range block = block_at(number), sums = sums_of(units);
  const T* x = p.x + block.begin * p.batch * p.inputs;
  kernels_.product({block.size() * p.batch,
                    padded_sums_,
                    sums.begin,
                    sums.end,
                    {bias_.get(), lanes, 0},
                    {{{x, lanes, p.inputs}, p.inputs, w_ih_.get()}},
                    {projected(number), lanes, padded_sums_}});
}

// The calls of a step. They are prepared once a block, and moved from step to step: with few rows a
// step takes no longer than it would take to prepare them.
template <class T>
struct ForwardPass<T>::Step {
  Product<T> products[2];  // segment 0 reads x_t, segment 1 S_{t-1}
  int count;               // of products
  T* y;                    // where S_t goes
  Pointwise<T> pointwise;  // of an Elman cell
  GatesForward<T> gates;   // of a gated one
};

template <class T>
void ForwardPass<T>::run_step(const Step& step) const {
  for (int i = 0; i < step.count; ++i) kernels_.product(step.products[i]);
  const CellKernels<T>& cell = kernels_.cells[static_cast<int>(problem_.cell)];
  cell_.gated() ? cell.gates_forward(step.gates) : cell.forward(step.pointwise);
}

// S_t of this member's rows and units; `projected` is the block's, or null.
template <class T>
typename ForwardPass<T>::Step ForwardPass<T>::step_at(Index t, const T* projected, Range rows,
                                                      Range units) const {
  const Problem<T>& p = problem_;
  Step step{};
  step.y = record_.y + (t * p.batch + rows.begin) * p.hidden;
  add_products(step, t, projected, rows, units);
  if (cell_.gated()) {
    step.gates = gates_at(t, projected, rows, units);
  } else {
    step.pointwise = {rows.size(), units.begin, units.end, {}, step.products[0].out};
    step.pointwise.next_values = step.products[0].out;
    if (t + 1 < p.steps) step.pointwise.next_values.data += p.batch * p.hidden;
  }
  return step;
}

// The sums that the cell takes: one product, or where both parts go apart one of each, unless the
// first was done ahead.
template <class T>
void ForwardPass<T>::add_products(Step& step, Index t, const T* projected, Range rows,
                                  Range units) const {
  const Problem<T>& p = problem_;
  const Index lanes = kernels_.lanes, row = t * p.batch + rows.begin;
  const Range columns = sums_of(units);
  const T* previous = t == 0 ? p.state : record_.y + (t - 1) * p.batch * p.hidden;
  const typename Product<T>::Segment x{
      {p.x + row * p.inputs, lanes, p.inputs}, p.inputs, w_ih_.get()};
  const typename Product<T>::Segment s{
      {previous + rows.begin * p.hidden, lanes, p.hidden}, p.hidden, w_hh_.get()};
  const Strips<const T> bias{bias_.get(), lanes, 0};
  const Strips<T> y{step.y, lanes, p.hidden};
  T* const sums = const_cast<T*>(sums_.get()) + rows.begin * padded_sums_;
  const Strips<T> out = cell_.gated() ? Strips<T>{sums, lanes, padded_sums_} : y;
  const Index width = cell_.gated() ? padded_sums_ : p.hidden;
  const Product<T> empty{rows.size(), width, columns.begin, columns.end, bias, {}, out};
  if (!projected) {
    step.products[step.count] = empty;
    step.products[step.count++].segments[0] = x;
  }
  if (cell_.apart) {
    step.products[step.count] = empty;
    step.products[step.count].init.data += padded_sums_;
    step.products[step.count].out.data += p.batch * padded_sums_;
    step.products[step.count++].segments[1] = s;
  } else if (projected) {
    step.products[step.count] = empty;
    step.products[step.count].init = {projected, lanes, padded_sums_};
    step.products[step.count++].segments[1] = s;
  } else {
    step.products[0].segments[1] = s;
  }
}

template <class T>
GatesForward<T> ForwardPass<T>::gates_at(Index t, const T* projected, Range rows,
                                         Range units) const {
  const Problem<T>& p = problem_;
  const Index row = t * p.batch + rows.begin;
  const T* const sums = sums_.get() + rows.begin * padded_sums_;
  const T* const initial = cell_.states > 1 ? p.c : p.state;
  const T* const history = cell_.states > 1 ? record_.c : record_.y;
  return {rows.size(),
          units.begin,
          units.end,
          p.hidden,
          cell_.apart && projected ? projected + rows.begin * padded_sums_ : sums,
          sums + p.batch * padded_sums_,
          padded_sums_,
          t == 0 ? initial + rows.begin * p.hidden : history + (row - p.batch) * p.hidden,
          record_.y + row * p.hidden,
          cell_.states > 1 ? record_.c + row * p.hidden : nullptr,
          record_.saved + row * cell_.saved * p.hidden};
}

// Makes the step before t that of t, if there is one.
template <class T>
void ForwardPass<T>::advance(Step& step, Index t) const {
  const Problem<T>& p = problem_;
  if (t >= p.steps) return;
  const Index state = p.batch * p.hidden;
  for (int i = 0; i < step.count; ++i) {
    Product<T>& product = step.products[i];
    product.init.data += p.batch * product.init.row_stride;
    if (product.segments[0].k > 0) product.segments[0].a.data += p.batch * p.inputs;
    if (product.segments[1].k > 0) product.segments[1].a.data = step.y;
  }
  step.y += state;
  if (cell_.gated()) {
    GatesForward<T>& gates = step.gates;
    gates.previous = cell_.states > 1 ? gates.c : gates.y;
    gates.y += state;
    if (cell_.states > 1) gates.c += state;
    gates.saved += state * cell_.saved;
    if (cell_.apart && plan_.project_first) gates.sums += p.batch * padded_sums_;
  } else {
    step.products[0].out.data = step.pointwise.values.data = step.y;
    if (t + 1 < p.steps) step.pointwise.next_values.data += state;
  }
}

template class ForwardPass<float>;
template class ForwardPass<double>;

}  // namespace bptt
