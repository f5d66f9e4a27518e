#include "engine/peak.h"

#include <algorithm>
#include <chrono>

#include "dispatch/dispatch.h"
#include "engine/team.h"

namespace bptt {

template <class T>
double fma_peak(int threads) {
  using Clock = std::chrono::steady_clock;
  constexpr int kRuns = 6;
  constexpr Index kIterations = 100'000;
  const auto chains = kernel_table().of<T>().fma_chains;
  Lease lease(threads);
  double best = 0;
  for (int run = 0; run < kRuns; ++run) {
    double flops = 0;
    auto work = [&](int member) {
      const double done = chains(kIterations);
      if (member == 0) flops = done;
    };
    const auto start = Clock::now();
    lease.run(lease.size(), work);
    const std::chrono::duration<double> elapsed = Clock::now() - start;
    best = std::max(best, flops * lease.size() / elapsed.count() / 1e9);
  }
  return best;
}

template double fma_peak<float>(int);
template double fma_peak<double>(int);

}  // namespace bptt
