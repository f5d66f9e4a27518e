// What is promised of the kernels for GPUs, whoever runs them: fibres, or a GPU.
#pragma once

#include "covering.h"
#include "cuda_layer.h"

namespace bptt::test {

inline constexpr Index kSizes[] = {1, 2, 3, 7, 17, 31, 33, 64};
inline constexpr Index kSizesAndNone[] = {0, 1, 2, 3, 7, 17, 31, 33, 64};
inline constexpr int kSizeCount = 8, kCellCount = 5, kWayCount = 4, kOptionCount = 8;

// run(layer, way, seed) -> Ran<double>; of the ways of which `has` is true.
template <class Run, class Has>
void check_every_pair(Run run, Has has) {
  double worst = 0;
  unsigned seed = 0, taken = 0;
  const std::vector<int> counts = {kSizeCount, kSizeCount + 1, kSizeCount + 1,
                                   kCellCount, kWayCount,      kOptionCount};
  for (const Case& c : pairwise(counts)) {
    if ((++taken % 3 > 0 && few_cases()) || !has(static_cast<Way>(c[4]))) continue;
    const LayerShape shape{static_cast<CudaCell>(c[3]),
                           kSizesAndNone[c[2]],
                           kSizesAndNone[c[1]],
                           kSizes[c[0]],
                           c[5] % 2 == 1,
                           c[5] / 2 % 2 == 1,
                           c[5] / 4 == 1,
                           c[5] / 2 % 2 == 1};
    const Way way = static_cast<Way>(c[4]);
    const Scope scope([&](std::ostream& out) { out << shape << ", " << kWays[c[4]]; });
    const CudaLayer<double> layer(shape, 41 + seed);
    const Ran<double> ran = run(layer, way, Schedule{++seed});
    CHECK_EQUAL(ran.forward.fault + ran.backward.fault, "");
    const Written<double> expected = PlainLoops(layer).run();
    ran.written.for_each_with(expected, [&](const char* name, const auto& a, const auto& b) {
      const Scope array([&](std::ostream& out) { out << name; });
      CHECK_AT_MOST(error_of(a, b), 1e-12);
    });
    worst = std::max(worst, error_of(ran.written, expected));
  }
  std::cout << "largest error " << worst << '\n';
}

}  // namespace bptt::test
