// What is promised of the kernels for GPUs, whoever runs them: fibres, or a GPU.
#pragma once

#include "covering.h"
#include "cuda_layer.h"
#include "cuda_mma.h"

namespace bptt::test {

inline constexpr Index kSizes[] = {1, 2, 3, 7, 17, 31, 33, 64};
inline constexpr int kCellCount = 5, kWayCount = 4, kOptionCount = 8;

// check(shape, way, seed) of few cases in which every pair of values meets: of all widths, so many
// ways, and T and B of `steps` and `batches`.
template <class Check>
void for_every_pair(int ways, const std::vector<Index>& steps, const std::vector<Index>& batches,
                    Check check) {
  unsigned seed = 0;
  const auto count = [](const auto& of) { return static_cast<int>(std::size(of)); };
  const std::vector<int> counts = {count(kSizes), count(batches), count(steps),
                                   kCellCount,    ways,           kOptionCount};
  for (const Case& c : pairwise(counts)) {
    if (++seed % 3 > 0 && few_cases()) continue;
    const LayerShape shape{static_cast<CudaCell>(c[3]),
                           steps[static_cast<Size>(c[2])],
                           batches[static_cast<Size>(c[1])],
                           kSizes[c[0]],
                           c[5] % 2 == 1,
                           c[5] / 2 % 2 == 1,
                           c[5] / 4 == 1,
                           c[5] / 2 % 2 == 1};
    const Scope scope([&](std::ostream& out) { out << shape << ", " << kWays[c[4]]; });
    check(shape, static_cast<Way>(c[4]), seed);
  }
}

// run(layer, way, schedule) -> Ran<double>; of the ways of which `has` is true.
template <class Run, class Has>
void check_every_pair(Run run, Has has) {
  double worst = 0;
  const std::vector<Index> counts = {0, 1, 2, 3, 7, 17, 31, 33, 64};
  for_every_pair(kWayCount, counts, counts, [&](const LayerShape& shape, Way way, unsigned seed) {
    if (!has(way)) return;
    const CudaLayer<double> layer(shape, 41 + seed);
    const Ran<double> ran = run(layer, way, Schedule{seed});
    CHECK_EQUAL(ran.forward.fault + ran.backward.fault, "");
    const Written<double> expected = PlainLoops(layer).run();
    ran.written.for_each_with(expected, [&](const char* name, const auto& a, const auto& b) {
      const Scope array([&](std::ostream& out) { out << name; });
      CHECK_AT_MOST(error_of(a, b), 1e-12);
    });
    worst = std::max(worst, error_of(ran.written, expected));
  });
  std::cout << "largest error " << worst << '\n';
}

// The same of products by tensor cores, which round to a format: what is left is float's own error,
// of sums of at most 256 products; a value rounded another way would be off by 2^-12 of itself.
template <class Run, class Has>
void check_every_pair_of_mma(Run run, Has has) {
  double worst = 0;
  for_every_pair(
      kWayCount - 1, {0, 1, 2, 7}, {0, 1, 3, 8, 9, 17},
      [&](const LayerShape& shape, Way way, unsigned seed) {
        if (!has(way)) return;
        const Format format = format_of(shape.cell, way);
        const Scope scope([&](std::ostream& out) { out << kFormats[static_cast<int>(format)]; });
        const CudaLayer<float> layer(CudaLayer<double>(shape, 41 + seed));
        const Ran<float> ran = run(layer, way, Schedule{seed});
        CHECK_EQUAL(ran.forward.fault + ran.backward.fault, "");
        const double error = error_of_steps(layer, format, ran.written);
        CHECK_AT_MOST(error, 5e-6);
        worst = std::max(worst, error);
      });
  std::cout << "largest error of a step " << worst << '\n';
}

}  // namespace bptt::test
