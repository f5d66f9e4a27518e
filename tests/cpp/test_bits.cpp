// The same bits for any number of threads, any batch that a row is in, and any ISA with FMA.
//
//     test_bits ISA        threads, batches, concurrent calls
//     test_bits all-isas   the ISAs with FMA against each other
#include <algorithm>
#include <atomic>
#include <cmath>
#include <iterator>
#include <limits>
#include <thread>
#include <vector>

#include "covering.h"
#include "engine/plan.h"
#include "engine/readout_alone.h"
#include "engine/team.h"
#include "isa.h"
#include "network.h"

namespace bptt::test {
namespace {

template <class T>
void check_same_bits(const Results<T>& a, const Results<T>& b) {
  a.for_each_with(b, [](const char* name, const auto& one, const auto& other) {
    const Scope scope([&](std::ostream& out) { out << name; });
    CHECK(one.same_bits_as(other));
  });
  CHECK(same_bits(a.loss, b.loss));
}

constexpr LossChoice kLossChoices[] = {{LossId::squared_error, -1, true},
                                       {LossId::cross_entropy, -1, false},
                                       {LossId::cross_entropy, 5, true}};

// What calls here take a barrier to cost, on a busy machine or one whose cores are far apart, too:
// of cores that share a cache, so that there is work for every split.
constexpr double kBarrierSeconds = 60e-9;

template <class T>
Plan plan_for(const Sizes& s, int threads) {
  Machine machine = this_machine();
  machine.barrier_seconds = kBarrierSeconds;
  return make_plan({{s.steps, s.batch}, s.inputs, s.hidden}, kernels<T>().product_width, sizeof(T),
                   threads, Passes::both, machine);
}

// The shapes of least work, of one batch size each, that two threads split in this way and that
// have more than one block of time.
template <class T>
std::vector<Sizes> shapes_split(Split split) {
  std::vector<Sizes> all;
  for (Index steps : {7, 150, 300, 900, 2000}) {
    for (Index batch : {1, 2, 3, 5, 64, 500}) {
      for (Index inputs : {1, 5, 31, 64}) {
        for (Index hidden : {33, 60, 100, 200, 257})
          all.push_back({steps, batch, inputs, hidden, 3});
      }
    }
  }
  const auto work = [](const Sizes& s) {
    return s.steps * s.batch * s.hidden * (s.inputs + s.hidden);
  };
  std::sort(all.begin(), all.end(),
            [&](const Sizes& a, const Sizes& b) { return work(a) < work(b); });
  std::vector<Sizes> found;
  for (const Sizes& s : all) {
    const Plan plan = plan_for<T>(s, 2);
    const bool new_batch = std::none_of(found.begin(), found.end(),
                                        [&](const Sizes& f) { return f.batch == s.batch; });
    if (new_batch && plan.threads == 2 && plan.split == split && s.steps > plan.block_steps) {
      found.push_back(s);
    }
  }
  CHECK(!found.empty());
  // The list begins with the least work.
  if (few_cases() && found.size() > 2) found.resize(2);
  return found;
}

// What a barrier costs decides how a call is split, and no bit.
template <class T>
void bits_do_not_depend_on_the_plan() {
  constexpr Sizes kSizes[] = {{1000, 3, 1, 16, 3},
                              {300, 1, 5, 60, 3},
                              {14, 200, 17, 64, 3},
                              {100, 3, 2000, 64, 3},
                              {60, 5, 31, 200, 3}};
  constexpr double kBarriers[] = {1e-9, 60e-9, 300e-9, 1e-4};
  const Selection selection({kTypes, std::size(kSizes), std::size(kBarriers), 2});
  for (const Sizes& sizes : kSizes) {
    const int size = static_cast<int>(&sizes - kSizes);
    const Network<T> network(Cells::tanh, sizes, Biases::both, 11);
    const Results<T> alone = run_both(network, 1);
    const Results<T> loss_alone = run_value_and_grad(network, kLossChoices[0], 1);
    for (const double& barrier : kBarriers) {
      const Scope scope([&](std::ostream& out) { out << sizes << ", barrier " << barrier; });
      assume_barrier_seconds(barrier);
      for (int threads : {2, 3}) {
        if (!selection.has({kType<T>, size, static_cast<int>(&barrier - kBarriers), threads - 2}))
          continue;
        check_same_bits(alone, run_both(network, threads));
        check_same_bits(loss_alone, run_value_and_grad(network, kLossChoices[0], threads));
      }
    }
  }
  assume_barrier_seconds(kBarrierSeconds);
}

template <class T, Split S>
void bits_do_not_depend_on_threads() {
  const Selection selection({std::size(kLossChoices), 2, 2});
  for (const Sizes& sizes : shapes_split<T>(S)) {
    const Scope scope([&](std::ostream& out) { out << sizes; });
    const Network<T> network(Cells::tanh, sizes, Biases::both, 3);
    const Results<T> alone = run_both(network, 1);
    for (int threads : {2, 3, 7}) {
      const Scope in([&](std::ostream& out) { out << threads << " threads"; });
      check_same_bits(alone, run_both(network, threads));
    }
    const Results<T> added_alone = add_both(network, 1, T(0.7));
    for (int threads : {2, 3}) {
      const Scope in([&](std::ostream& out) { out << threads << " threads, added"; });
      check_same_bits(added_alone, add_both(network, threads, T(0.7)));
    }
    for (const LossChoice& loss : kLossChoices) {
      const Results<T> loss_alone = run_value_and_grad(network, loss, 1);
      const Results<T> loss_added = add_value_and_grad(network, loss, 1, T(0.7));
      const int choice = static_cast<int>(&loss - kLossChoices);
      for (int threads : {2, 3}) {
        const Scope in([&](std::ostream& out) { out << threads << " threads"; });
        if (selection.has({choice, threads - 2, 0}))
          check_same_bits(loss_alone, run_value_and_grad(network, loss, threads));
        if (selection.has({choice, threads - 2, 1}))
          check_same_bits(loss_added, add_value_and_grad(network, loss, threads, T(0.7)));
      }
    }
  }
}

// The readout of states that are there sums as value_and_grad does.
template <class T>
void a_readout_alone_has_the_bits_of_the_whole() {
  constexpr Sizes kSizes[] = {{60, 70, 3, 33, 9},
                              {300, 2, 5, 64, 40},
                              {17, 3, 3, 65, 1},
                              {8, 0, 3, 5, 2},
                              {700, 1, 1, 257, 3}};
  for (const Sizes& s : kSizes) {
    const Network<T> network(Cells::tanh, s, Biases::both, 12);
    const Results<T> states = run_both(network, 1);
    for (const LossChoice& loss : kLossChoices) {
      const Results<T> whole = run_value_and_grad(network, loss, 2);
      for (int threads : {1, 2, 3, 7}) {
        const Scope scope([&](std::ostream& out) { out << s << ", " << threads << " threads"; });
        Results<T> r(network);
        GuardedArray<T> dy((loss.step < 0 ? s.steps : 1) * s.batch * s.hidden);
        Interrupt interrupt(never_asked);
        const double value =
            readout_gradient(network.problem(), states.y.get(), network.objective(loss),
                             {dy.get(), r.dw_ho.get(), r.db_o.get()}, {threads, true}, interrupt);
        CHECK(same_bits(value, whole.loss));
        CHECK(r.dw_ho.same_bits_as(whole.dw_ho));
        CHECK(r.db_o.same_bits_as(whole.db_o));
      }
    }
  }
}

// Copies rows [first, first + to.batch) of the batch of every step.
template <class T>
void copy_rows(const GuardedArray<T>& from, Index from_batch, GuardedArray<T>& to, Index to_batch,
               Index steps, Index width, Index first) {
  for (Index t = 0; t < steps; ++t) {
    std::copy_n(from.get() + (t * from_batch + first) * width, to_batch * width,
                to.get() + t * to_batch * width);
  }
}

// The same network with a part of the batch.
template <class T>
Network<T> rows_of(const Network<T>& n, CellId cell, Index first, Index batch) {
  Sizes s = n.sizes;
  s.batch = batch;
  Network<T> part(cell, s, Biases::both, 0);
  const Index whole = n.sizes.batch;
  copy_rows(n.x, whole, part.x, batch, s.steps, s.inputs, first);
  copy_rows(n.dy, whole, part.dy, batch, s.steps, s.hidden, first);
  copy_rows(n.target, whole, part.target, batch, s.steps, s.outputs, first);
  copy_rows(n.ids, whole, part.ids, batch, s.steps, 1, first);
  copy_rows(n.weights, whole, part.weights, batch, s.steps, 1, first);
  copy_rows(n.state, whole, part.state, batch, 1, s.hidden, first);
  copy_rows(n.dstate, whole, part.dstate, batch, 1, s.hidden, first);
  if (n.cell.states > 1) {
    copy_rows(n.c, whole, part.c, batch, 1, s.hidden, first);
    copy_rows(n.dc, whole, part.dc, batch, s.steps, s.hidden, first);
    copy_rows(n.dstate_c, whole, part.dstate_c, batch, 1, s.hidden, first);
  }
  for (auto array : {&Network<T>::w_ih, &Network<T>::w_hh, &Network<T>::b_ih, &Network<T>::b_hh,
                     &Network<T>::w_ho, &Network<T>::b_o}) {
    std::copy((n.*array).begin(), (n.*array).end(), (part.*array).begin());
  }
  return part;
}

template <class T>
void check_rows(const Results<T>& whole, const Sizes& s, const Results<T>& part, Index first,
                Index batch) {
  const auto check = [&](const char* name, const GuardedArray<T>& all, const GuardedArray<T>& some,
                         Index steps, Index width) {
    const Scope scope([&](std::ostream& out) { out << name; });
    GuardedArray<T> expected(some.size());
    copy_rows(all, s.batch, expected, batch, steps, width, first);
    CHECK(expected.same_bits_as(some));
  };
  check("y", whole.y, part.y, s.steps, s.hidden);
  check("last", whole.last, part.last, 1, s.hidden);
  check("dx", whole.dx, part.dx, s.steps, s.inputs);
  check("dstate", whole.dstate, part.dstate, 1, s.hidden);
  if (!whole.two) return;
  check("c", whole.c, part.c, s.steps, s.hidden);
  check("dstate_c", whole.dstate_c, part.dstate_c, 1, s.hidden);
}

// y, dx and dstate.
template <class T>
void a_row_has_the_same_bits_in_any_batch() {
  const Sizes sizes{40, 19, 9, 70, 3};
  constexpr Index kBatches[] = {1, 2, 3, 5, 8, 18};
  const Selection selection({kTypes, Cells::count(), std::size(kBatches), 3});
  for (int cell = 0; cell < Cells::count(); ++cell) {
    const Network<T> whole(static_cast<CellId>(cell), sizes, Biases::both, 4);
    const Results<T> both = run_both(whole, 2);
    const Results<T> loss = run_value_and_grad(whole, kLossChoices[0], 2);
    for (const Index& batch : kBatches) {
      const Index firsts[] = {0, (sizes.batch - batch) / 2, sizes.batch - batch};
      for (const Index& first : firsts) {
        if (!selection.has({kType<T>, cell, static_cast<int>(&batch - kBatches),
                            static_cast<int>(&first - firsts)}))
          continue;
        const Scope scope([&](std::ostream& out) {
          out << name_of(static_cast<CellId>(cell)) << ", " << sizes << ", rows " << first << " + "
              << batch;
        });
        const Network<T> part = rows_of(whole, static_cast<CellId>(cell), first, batch);
        check_rows(both, sizes, run_both(part, 1), first, batch);
        check_rows(loss, sizes, run_value_and_grad(part, kLossChoices[0], 1), first, batch);
      }
    }
  }
}

// The parameters' gradients of each row of the batch, and their norms.
template <class T>
struct RowGradients {
  explicit RowGradients(const Network<T>& n)
      : batch(n.sizes.batch),
        w_ih(batch * n.w_ih.size()),
        w_hh(batch * n.w_hh.size()),
        b_ih(batch * n.b_ih.size()),
        b_hh(batch * n.b_hh.size()),
        w_ho(batch * n.w_ho.size()),
        b_o(batch * n.b_o.size()),
        norm(batch) {}

  // Of the parameters alone, or of w_hh the norm.
  Gradients<T> each() {
    return {nullptr,    nullptr,    nullptr,   w_ih.get(),       w_hh.get(),  b_ih.get(),
            b_hh.get(), w_ho.get(), b_o.get(), Write::overwrite, OfRows::each};
  }
  Gradients<T> norms() {
    Gradients<T> g{};
    g.w_hh = norm.get();
    g.of_rows = OfRows::norm;
    return g;
  }

  void check_row(Index b, const Results<T>& alone) const {
    const auto check = [&](const char* name, const GuardedArray<T>& all, const GuardedArray<T>& g) {
      const Scope scope([&](std::ostream& out) { out << name << " of row " << b; });
      GuardedArray<T> row(g.size());
      std::copy_n(all.get() + b * g.size(), g.size(), row.get());
      CHECK(row.same_bits_as(g));
    };
    check("w_ih", w_ih, alone.dw_ih);
    check("w_hh", w_hh, alone.dw_hh);
    check("b_ih", b_ih, alone.db_ih);
    check("b_hh", b_hh, alone.db_hh);
    check("w_ho", w_ho, alone.dw_ho);
    check("b_o", b_o, alone.db_o);
    double squares = 0;
    for (const T& g : alone.dw_hh) squares += static_cast<double>(g) * static_cast<double>(g);
    const double expected = std::sqrt(squares);
    CHECK_AT_MOST(std::abs(static_cast<double>(norm.get()[b]) - expected),
                  static_cast<double>(alone.dw_hh.size()) * 0x1p-53 * expected +
                      std::numeric_limits<T>::epsilon() * expected);
  }

  Index batch;
  GuardedArray<T> w_ih, w_hh, b_ih, b_hh, w_ho, b_o, norm;
};

template <class T>
void a_row_apart_has_the_bits_of_a_batch_of_one() {
  constexpr Sizes kSizes[] = {{300, 3, 5, 17, 3}, {9, 40, 33, 8, 2}};
  for (int cell = 0; cell < Cells::count(); ++cell) {
    for (const Sizes& sizes : kSizes) {
      const Network<T> whole(static_cast<CellId>(cell), sizes, Biases::both, 4);
      for (const LossChoice& loss : kLossChoices) {
        RowGradients<T> rows(whole);
        for (const Gradients<T>& g : {rows.each(), rows.norms()}) {
          Interrupt interrupt(never_asked);
          value_and_grad(whole.problem(), whole.objective(loss), g, {}, {}, {2, true}, interrupt);
        }
        for (Index b = 0; b < sizes.batch; b += 1 + sizes.batch / 5) {
          const Network<T> one = rows_of(whole, static_cast<CellId>(cell), b, 1);
          rows.check_row(b, run_value_and_grad(one, loss, 1));
        }
      }
    }
  }
}

// Calls from several threads of the caller at once.
template <class T>
void concurrent_calls_have_the_same_bits() {
  constexpr int kCallers = 3;
  const Network<T> network(Cells::tanh, {100, 8, 17, 65, 3}, Biases::both, 5);
  const Results<T> alone = run_both(network, 1);
  std::atomic<int> different{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < kCallers; ++caller) {
    callers.emplace_back([&] {
      for (int call = 0; call < 5; ++call) {
        const Results<T> got = run_both(network, 2);
        got.for_each_with(alone, [&](const char*, const auto& one, const auto& other) {
          different += !one.same_bits_as(other);
        });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK_EQUAL(different.load(), 0);
}

constexpr Sizes kShapes[] = {
    {14, 64, 5, 33, 3}, {90, 3, 31, 200, 3}, {260, 1, 3, 257, 3}, {300, 2, 64, 64, 3}};

template <class T>
std::vector<Results<T>> all_results_on(const std::string& isa) {
  select_isa(isa);
  std::vector<Results<T>> all;
  const Selection selection({kTypes, std::size(kShapes), Cells::count()});
  for (const Sizes& sizes : kShapes) {
    for (int cell = 0; cell < Cells::count(); ++cell) {
      if (!selection.has({kType<T>, static_cast<int>(&sizes - kShapes), cell})) continue;
      const Network<T> network(static_cast<CellId>(cell), sizes, Biases::both, 6);
      all.push_back(run_both(network, 2));
      for (const LossChoice& loss : kLossChoices) {
        all.push_back(run_value_and_grad(network, loss, 2));
      }
    }
  }
  return all;
}

template <class T>
void isas_with_fma_have_the_same_bits() {
  const std::vector<Results<T>> on_avx2 = all_results_on<T>("avx2");
  const std::vector<Results<T>> on_avx512 = all_results_on<T>("avx512");
  for (std::size_t i = 0; i < on_avx2.size(); ++i) check_same_bits(on_avx2[i], on_avx512[i]);
}

}  // namespace
}  // namespace bptt::test

int main(int argc, char** argv) {
  using namespace bptt::test;
  bptt::assume_barrier_seconds(kBarrierSeconds);
  if (argc == 2 && std::string(argv[1]) == "all-isas") {
    if (!runs_here("avx2") || !runs_here("avx512")) {
      std::cout << "skipped: this CPU or this build has no two ISAs with FMA" << std::endl;
      return kSkipped;
    }
    return run_tests(
        {{"float32: ISAs with FMA have the same bits", isas_with_fma_have_the_same_bits<float>},
         {"float64: ISAs with FMA have the same bits", isas_with_fma_have_the_same_bits<double>}});
  }
  return run_tests_on_isa(
      argc, argv,
      {{"float32: bits do not depend on threads, slices",
        bits_do_not_depend_on_threads<float, bptt::Split::slices>},
       {"float32: bits do not depend on threads, rows",
        bits_do_not_depend_on_threads<float, bptt::Split::rows>},
       {"float32: bits do not depend on threads, hidden",
        bits_do_not_depend_on_threads<float, bptt::Split::hidden>},
       {"float32: bits do not depend on threads, pipeline",
        bits_do_not_depend_on_threads<float, bptt::Split::pipeline>},
       {"float32: a readout alone has the bits of the whole",
        a_readout_alone_has_the_bits_of_the_whole<float>},
       {"float64: a readout alone has the bits of the whole",
        a_readout_alone_has_the_bits_of_the_whole<double>},
       {"float64: bits do not depend on threads, slices",
        bits_do_not_depend_on_threads<double, bptt::Split::slices>},
       {"float64: bits do not depend on threads, rows",
        bits_do_not_depend_on_threads<double, bptt::Split::rows>},
       {"float64: bits do not depend on threads, hidden",
        bits_do_not_depend_on_threads<double, bptt::Split::hidden>},
       {"float64: bits do not depend on threads, pipeline",
        bits_do_not_depend_on_threads<double, bptt::Split::pipeline>},
       {"float32: bits do not depend on the plan", bits_do_not_depend_on_the_plan<float>},
       {"float64: bits do not depend on the plan", bits_do_not_depend_on_the_plan<double>},
       {"float32: a row has the same bits in any batch",
        a_row_has_the_same_bits_in_any_batch<float>},
       {"float64: a row has the same bits in any batch",
        a_row_has_the_same_bits_in_any_batch<double>},
       {"float32: a row apart has the bits of a batch of one",
        a_row_apart_has_the_bits_of_a_batch_of_one<float>},
       {"float64: a row apart has the bits of a batch of one",
        a_row_apart_has_the_bits_of_a_batch_of_one<double>},
       {"float32: concurrent calls have the same bits", concurrent_calls_have_the_same_bits<float>},
       {"float64: concurrent calls have the same bits",
        concurrent_calls_have_the_same_bits<double>}});
}
