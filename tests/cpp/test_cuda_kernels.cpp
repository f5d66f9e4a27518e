// The kernels for GPUs, their threads run as fibres: what they compute, in every way that blocks
// exchange states, and that the order of threads does not show.
#include "run_on_fibres.h"

#include "arrays.h"
#include "cuda_checks.h"

namespace bptt::test {
namespace {

void every_pair_of_sizes_cells_and_ways() {
  const auto on_fibres = [](const CudaLayer<double>& layer, Way way, const Schedule& schedule) {
    return run(layer, way, schedule);
  };
  check_every_pair(on_fibres, [](Way) { return true; });
}

// In a tile as it is for a chip: 256 threads, of which each holds 128 weights at most.
template <class Tile>
void float32_of_large_layers(CudaCell cell, Index hidden) {
  const LayerShape shape{cell, 3, 3, hidden, true, true, true, true};
  const Scope scope([&](std::ostream& out) { out << shape; });
  const CudaLayer<double> layer(shape, 43);
  const CudaLayer<float> rounded(layer);
  const Ran<float> ran = run_held<float, Tile>(rounded, {1});
  CHECK_EQUAL(ran.forward.fault + ran.backward.fault, "");
  CHECK_AT_MOST(error_of(ran.written, PlainLoops(layer).run()), 2e-5);
}

void float32() {
  using Lstm = cuda::Lstm<float>;
  using Gru = cuda::Gru<float>;
  float32_of_large_layers<cuda::Tile<float, Lstm, cuda::Cluster, 32, 256, 256, 2>>(CudaCell::lstm,
                                                                                   250);
  float32_of_large_layers<cuda::Tile<float, Gru, cuda::Grid, 16, 512, 256, 2>>(CudaCell::gru, 500);
}

void ten_orders_of_threads() {
  const unsigned orders = few_cases() ? 2 : 10;
  for (int cell = 0; cell < kCellCount; ++cell) {
    const LayerShape shape{static_cast<CudaCell>(cell), 5, 7, 33, true, true, true, true};
    const CudaLayer<double> layer(shape, 42);
    for (Way way : {Way::one_block, Way::cluster, Way::grid}) {
      const Scope scope(
          [&](std::ostream& out) { out << shape << ", " << kWays[static_cast<int>(way)]; });
      const Ran<double> first = run(layer, way, {1});
      for (unsigned seed = 2; seed <= orders; ++seed) {
        const Ran<double> ran = run(layer, way, {seed});
        CHECK_EQUAL(ran.forward.fault + ran.backward.fault, "");
        ran.written.for_each_with(first.written, [&](const char*, const auto& a, const auto& b) {
          CHECK(std::equal(a.begin(), a.end(), b.begin(), same_bits<double>));
        });
      }
    }
  }
}

// Threads that wait at different barriers are told of, and do not hang the test.
void deadlocks_are_found() {
  const auto kernel = [] {
    if (cuda::thread_index() == 0) cuda::block_barrier();
  };
  CHECK(fibres::launch({2, 4}, kernel).fault.find("wait for ever") != std::string::npos);
  unsigned counter = 0;
  const auto waiting = [&] { cuda::await(&counter, 1); };
  CHECK(fibres::launch({1, 1}, waiting).fault.find("counter") != std::string::npos);
}

void counters_wrap_around() {
  unsigned counter = 0xffffffff;
  const auto kernel = [&] {
    if (cuda::block_index() == 0) {
      cuda::await(&counter, 1);
    } else {
      cuda::signal(&counter);
    }
  };
  CHECK_EQUAL(fibres::launch({3, 1}, kernel).fault, "");
}

}  // namespace
}  // namespace bptt::test

int main() {
  using namespace bptt::test;
  return run_tests(
      {{"fibres that wait for ever are found", deadlocks_are_found},
       {"counters wrap around", counters_wrap_around},
       {"every pair of sizes, cells and ways of exchange", every_pair_of_sizes_cells_and_ways},
       {"float32, in tiles for a chip", float32},
       {"ten orders of threads have the same bits", ten_orders_of_threads}});
}
