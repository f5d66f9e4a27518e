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

void every_pair_by_tensor_cores() {
  const auto on_fibres = [](const CudaLayer<float>& layer, Way way, const Schedule& schedule) {
    return run_mma(layer, way, schedule);
  };
  check_every_pair_of_mma(on_fibres, [](Way) { return true; });
}

// Words of the fibres: they stand for the chip's conversions.
void values_are_rounded_to_formats() {
  Random random(7);
  const auto check = [](float v) {
    const Scope scope([&](std::ostream& out) { out << std::hexfloat << v; });
    const auto same = [](float found, double expected) {
      return static_cast<double>(found) == expected || (found != found && expected != expected);
    };
    const double wide = static_cast<double>(v);
    CHECK(same(cuda::value_of<cuda::Bf16>(cuda::rounded<cuda::Bf16>(v), 0),
               nearest(Format::bf16, wide)));
    CHECK(same(cuda::value_of<cuda::F16>(cuda::rounded<cuda::F16>(v), 0),
               nearest(Format::f16, wide)));
    CHECK(same(cuda::value_of<cuda::Tf32>(cuda::rounded<cuda::Tf32>(v), 0),
               nearest(Format::tf32, wide)));
  };
  for (float v : {0.0f, 1.0f, 65504.0f, 65519.0f, 65520.0f, 0x1p-24f, 0x1p-25f, 0x1.8p-25f,
                  0x1.ffcp-15f, 0x1.ffep-15f, 0x1.01p0f, 0x1.03p0f, 0x1.002p0f, 0x1.001p0f,
                  0x1.fffffep127f, HUGE_VALF, NAN}) {
    check(v), check(-v);
  }
  for (int i = 0; i < 100000; ++i) {
    check(__builtin_bit_cast(float, static_cast<unsigned>(random.below(1LL << 32))));
  }
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

// 256 threads that hold some tiles of a warp; the rest is in shared memory. Units of all blocks are
// more than there are columns.
void tensor_cores_in_large_layers() {
  using Tile = cuda::MmaTile<cuda::Bf16, cuda::Lstm<float>, cuda::Cluster, 48, 256, 256, 8, 10, 10>;
  const CudaLayer<float> layer(
      CudaLayer<double>({CudaCell::lstm, 2, 3, 250, true, true, true, true}, 43));
  const Ran<float> ran = run_held<float, Tile>(layer, {1});
  CHECK_EQUAL(ran.forward.fault + ran.backward.fault, "");
  CHECK_AT_MOST(error_of_steps(layer, Format::bf16, ran.written), 5e-6);
}

void ten_orders_by_tensor_cores() {
  const CudaLayer<float> layer(
      CudaLayer<double>({CudaCell::gru, 4, 9, 33, true, true, true, true}, 42));
  for (Way way : kMmaWays) {
    const Scope scope([&](std::ostream& out) { out << kWays[static_cast<int>(way)]; });
    const Ran<float> first = run_mma(layer, way, {1});
    for (unsigned seed = 2; seed <= (few_cases() ? 2 : 10); ++seed) {
      const Ran<float> ran = run_mma(layer, way, {seed});
      CHECK_EQUAL(ran.forward.fault + ran.backward.fault, "");
      ran.written.for_each_with(first.written, [&](const char*, const auto& a, const auto& b) {
        CHECK(std::equal(a.begin(), a.end(), b.begin(), same_bits<float>));
      });
    }
  }
}

// Lanes that part before a product are told of.
void a_warp_that_is_not_whole_is_found() {
  const auto kernel = [] {
    float sum[4] = {};
    const unsigned left[4] = {}, right[2] = {};
    if (cuda::thread_index() != 5) cuda::mma<cuda::Bf16>(sum, left, right);
  };
  CHECK(fibres::launch({1, 64}, kernel).fault.find("at the mma") != std::string::npos);
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
       {"a warp that is not whole is found", a_warp_that_is_not_whole_is_found},
       {"values are rounded to the nearest of a format", values_are_rounded_to_formats},
       {"every pair of sizes, cells and ways of exchange", every_pair_of_sizes_cells_and_ways},
       {"the same by tensor cores", every_pair_by_tensor_cores},
       {"float32, in tiles for a chip", float32},
       {"tensor cores, in a tile for a chip", tensor_cores_in_large_layers},
       {"ten orders of threads have the same bits", ten_orders_of_threads},
       {"ten orders by tensor cores, too", ten_orders_by_tensor_cores}});
}
