// The plan: shares cover everything once, a plan fits its shape, and what is summed at once depends
// on the shape alone.
#include <algorithm>

#include "check.h"
#include "engine/plan.h"
#include "isa.h"

namespace bptt::test {
namespace {

std::ostream& operator<<(std::ostream& out, const Shape& s) {
  return out << "T " << s.sequence.steps << ", B " << s.sequence.batch << ", I " << s.inputs
             << ", H " << s.hidden;
}

// Whether the ranges of parts 0 ... parts-1 follow each other from 0 to n, cut at the grain.
template <class RangeOf>
bool covers(Index n, Index grain, int parts, RangeOf range_of) {
  Index end = 0;
  for (int i = 0; i < parts; ++i) {
    const Range range = range_of(i);
    const bool cut_at_grain = range.begin % grain == 0 || range.begin == n;
    if (range.begin != end || range.end < range.begin || !cut_at_grain) return false;
    end = range.end;
  }
  return end == n;
}

void shares_cover_everything_once() {
  for (Index n = 0; n <= 300; ++n) {
    for (Index grain : {1, 2, 7, 8, 16, 64, 500}) {
      for (int parts : {1, 2, 3, 4, 7, 16, 64}) {
        const Scope scope([&](std::ostream& out) {
          out << "n " << n << ", grain " << grain << ", parts " << parts;
        });
        CHECK(covers(n, grain, parts, [&](int i) { return share(n, grain, i, parts); }));
      }
    }
  }
}

void shares_differ_by_one_grain_at_most() {
  for (Index n : {1, 10, 63, 64, 65, 1000}) {
    for (int parts : {1, 2, 3, 7}) {
      Index least = n, most = 0;
      for (int i = 0; i < parts; ++i) {
        least = std::min(least, share(n, 1, i, parts).size());
        most = std::max(most, share(n, 1, i, parts).size());
      }
      CHECK_AT_MOST(most - least, 1);
    }
  }
}

// f(shape) over sizes from nothing to large.
template <class F>
void for_each_shape(F&& f) {
  for (Index steps : {0, 1, 3, 100, 5000}) {
    for (Index batch : {0, 1, 2, 3, 4, 7, 8, 31, 64, 300}) {
      for (Index inputs : {0, 1, 17, 256}) {
        for (Index hidden : {1, 2, 31, 64, 65, 129, 256, 1024, 2048}) {
          const Shape shape{{steps, batch}, inputs, hidden};
          const Scope scope([&](std::ostream& out) { out << shape; });
          f(shape);
        }
      }
    }
  }
}

constexpr Index kPanels[] = {8, 16, 32, 64};

void plans_fit_their_shape() {
  for_each_shape([](const Shape& shape) {
    for (Index panel : kPanels) {
      for (int threads : {1, 2, 3, 7, 64}) {
        const Plan plan = make_plan(shape, panel, sizeof(float), threads);
        CHECK(plan.threads >= 1 && plan.threads <= threads);
        CHECK_AT_MOST(1, plan.sum_steps);
        CHECK(plan.block_steps >= plan.sum_steps && plan.block_steps % plan.sum_steps == 0);
        const Index batch = shape.sequence.batch;
        const bool slices = plan.split == Split::slices, rows = plan.split == Split::rows;
        CHECK(!(slices || rows) || covers(batch, slices ? plan.slice_rows : 1, plan.threads,
                                          [&](int i) { return plan.rows_of(i); }));
        CHECK(plan.rows_at_once >= 1 &&
              (!slices || batch == 0 || plan.rows_at_once % plan.slice_rows == 0 ||
               plan.rows_at_once == batch));
        CHECK(!slices || plan.threads == 1 || plan.slices() >= plan.threads);
        CHECK(covers(shape.hidden, panel, plan.split == Split::hidden ? plan.threads : 1,
                     [&](int i) { return plan.units_of(i, panel); }));
      }
    }
  });
}

// Whatever a barrier costs, and for every kind of call.
void pipelines_project_first() {
  Machine machine = this_machine();
  for (double barrier : {1e-9, 60e-9, 300e-9, 1e-5}) {
    machine.barrier_seconds = barrier;
    for_each_shape([&](const Shape& some) {
      for (Index inputs : {some.inputs, Index{4096}}) {
        const Shape shape{some.sequence, inputs, some.hidden};
        for (Passes passes : {Passes::forward, Passes::backward, Passes::both}) {
          for (int threads : {2, 7}) {
            const Plan plan = make_plan(shape, 64, sizeof(float), threads, passes, machine);
            CHECK(plan.split != Split::pipeline || (plan.project_first && plan.threads == 2));
          }
        }
      }
    });
  }
}

void every_member_has_work() {
  for_each_shape([](const Shape& shape) {
    for (int threads : {2, 3, 7, 64}) {
      const Plan plan = make_plan(shape, 64, sizeof(float), threads);
      for (int i = 0; i < plan.threads && plan.threads > 1; ++i) {
        CHECK(plan.rows_of(i).size() > 0);
        CHECK(plan.units_of(i, 64).size() > 0);
      }
    }
  });
}

// The bits of a weight gradient must not depend on threads, ISA or the size of a cache.
void sums_depend_on_the_shape_alone() {
  std::vector<Machine> machines{this_machine(), this_machine()};
  machines.back().l2_bytes = 7 * machines.back().l2_bytes / 2;
  for (const std::string& kind : machine_kinds()) machines.push_back(machine_of_kind(kind, 64));
  for_each_shape([&](const Shape& shape) {
    const Plan alone = make_plan(shape, 64, sizeof(float), 1);
    for (Index panel : kPanels) {
      for (int threads : {1, 2, 3, 7, 64}) {
        for (const Machine& machine : machines) {
          const Plan plan = make_plan(shape, panel, sizeof(float), threads, Passes::both, machine);
          CHECK_EQUAL(plan.sum_steps, alone.sum_steps);
          CHECK_EQUAL(plan.slice_rows, alone.slice_rows);
        }
      }
    }
  });
}

// Each row is a slice, and one thread's.
void rows_apart_are_summed_as_batches_of_one() {
  for_each_shape([](const Shape& some) {
    Shape shape = some, one = some;
    shape.rows_apart = true;
    one.sequence.batch = 1;
    for (int threads : {1, 2, 7}) {
      const Plan plan = make_plan(shape, 64, sizeof(float), threads);
      CHECK(plan.split == Split::slices);
      CHECK_EQUAL(plan.slices(), shape.sequence.batch);
      CHECK_EQUAL(plan.sum_steps, make_plan(one, 64, sizeof(float), 1).sum_steps);
    }
  });
}

void costs_are_positive_and_more_threads_never_cost_more() {
  for_each_shape([](const Shape& shape) {
    double alone = make_plan(shape, 64, sizeof(float), 1).cost.total;
    CHECK(alone >= 0 && (alone > 0 || shape.sequence.steps == 0));
    for (int threads : {2, 4, 8, 16}) {
      CHECK_AT_MOST(make_plan(shape, 64, sizeof(float), threads).cost.total, alone);
    }
  });
}

// Forward alone and both together: else the sums of `backward` would depend on who called it.
void sums_do_not_depend_on_the_passes() {
  for_each_shape([](const Shape& shape) {
    const Plan both = make_plan(shape, 64, sizeof(float), 2);
    for (Passes passes : {Passes::forward, Passes::backward}) {
      const Plan plan = make_plan(shape, 64, sizeof(float), 2, passes);
      CHECK_EQUAL(plan.sum_steps, both.sum_steps);
      CHECK_EQUAL(plan.slice_rows, both.slice_rows);
    }
  });
}

void small_work_stays_on_one_thread() {
  CHECK_EQUAL(make_plan({{1, 1}, 8, 8}, 64, sizeof(float), 16).threads, 1);
  CHECK_EQUAL(make_plan({{10, 4}, 8, 16}, 64, sizeof(float), 16).threads, 1);
  CHECK_EQUAL(make_plan({{0, 64}, 512, 512}, 64, sizeof(float), 16).threads, 1);
}

void large_work_is_split() {
  const Plan slices = make_plan({{100, 64}, 128, 128}, 64, sizeof(float), 2);
  CHECK_EQUAL(slices.threads, 2);
  CHECK(slices.split == Split::slices);
  const Plan hidden = make_plan({{100, 1}, 512, 512}, 64, sizeof(float), 2);
  CHECK_EQUAL(hidden.threads, 2);
  CHECK(hidden.split == Split::hidden);
  Machine near = this_machine();
  near.barrier_seconds = 60e-9;  // cores that share a cache
  const Shape few{{1000, 1}, 1, 64};
  const Plan pipeline = make_plan(few, 64, sizeof(float), 2, Passes::both, near);
  CHECK_EQUAL(pipeline.threads, 2);
  CHECK(pipeline.split == Split::pipeline);
}

// Weights that come from afar at each step are split by units, as far as there are units for all
// threads.
void large_weights_are_split_by_units_unless_threads_would_be_idle() {
  const Shape shape{{100, 512}, 1024, 1024, 0, shape_of(Cells::lstm)};  // 16 panels
  const Plan few = make_plan(shape, 64, 4, 8), many = make_plan(shape, 64, 4, 64);
  CHECK(few.split == Split::hidden && few.threads == 8);
  CHECK(many.threads > 16);
}

// What is near and what is far is for the machine to say.
void weights_are_far_where_the_machine_says_so() {
  Machine near = this_machine(), far = near;
  near.near_bytes = near.fetch_bytes = 8 << 20;
  far.near_bytes = 2 << 20;
  far.fetch_bytes = 1 << 20;
  const Shape shape{{50, 16}, 256, 512, 0, shape_of(Cells::tanh)};
  const Shape wide{{50, 16}, 512, 512, 0, shape_of(Cells::lstm)};
  const auto plan = [&](const Shape& s, const Machine& machine) {
    return make_plan(s, 64, sizeof(float), 1, Passes::both, machine);
  };
  CHECK(!plan(wide, near).project_first && plan(wide, far).project_first);
  CHECK(!plan(wide, near).far(512) && plan(wide, far).far(512));
  CHECK(plan(shape, far).far(768) && !plan(shape, far).far(256));
}

}  // namespace
}  // namespace bptt::test

int main() {
  using namespace bptt::test;
  return run_tests({
      {"shares cover everything once", shares_cover_everything_once},
      {"shares differ by one grain at most", shares_differ_by_one_grain_at_most},
      {"plans fit their shape", plans_fit_their_shape},
      {"pipelines project first", pipelines_project_first},
      {"every member has work", every_member_has_work},
      {"sums depend on the shape alone", sums_depend_on_the_shape_alone},
      {"rows apart are summed as batches of one", rows_apart_are_summed_as_batches_of_one},
      {"costs are positive, and more threads never cost more",
       costs_are_positive_and_more_threads_never_cost_more},
      {"sums do not depend on the passes", sums_do_not_depend_on_the_passes},
      {"small work stays on one thread", small_work_stays_on_one_thread},
      {"large work is split", large_work_is_split},
      {"large weights are split by units unless threads would be idle",
       large_weights_are_split_by_units_unless_threads_would_be_idle},
      {"weights are far where the machine says so", weights_are_far_where_the_machine_says_so},
  });
}
