#include "engine/yardsticks.h"

#include <algorithm>
#include <chrono>

#include "dispatch/dispatch.h"
#include "engine/scratch.h"
#include "engine/team.h"

namespace bptt {
namespace {

using Clock = std::chrono::steady_clock;

// Seconds of the fastest of several runs.
template <class F>
double fastest(F&& run) {
  constexpr int kRuns = 6;
  std::chrono::duration<double> least{1e9};
  for (int i = 0; i < kRuns; ++i) {
    const auto start = Clock::now();
    run();
    least = std::min<std::chrono::duration<double>>(least, Clock::now() - start);
  }
  return least.count();
}

template <class F>
double seconds_of(Index calls, F&& call) {
  const double run = fastest([&] {
    for (Index i = 0; i < calls; ++i) call();
  });
  return run / static_cast<double>(calls);
}

// With what sums stay small.
template <class T>
Buffer<T> filled(Index count) {
  Buffer<T> buffer(count);
  for (Index i = 0; i < count; ++i) buffer.get()[i] = i % 2 ? T(0.25) : T(-0.25);
  return buffer;
}

}  // namespace

template <class T>
double fma_peak(int threads, bool loads) {
  const Kernels<T>& kernels = kernel_table().of<T>();
  const auto multiply_adds = loads ? kernels.fma_tile : kernels.fma_chains;
  const Index iterations = loads ? 6'000 : 100'000;
  Lease lease(threads);
  double flops = 0;
  auto work = [&](int member) {
    const double done = multiply_adds(iterations);
    if (member == 0) flops = done * lease.size();
  };
  const double seconds = fastest([&] { lease.run(lease.size(), work); });
  return flops / seconds / 1e9;
}

template <class T>
double product_seconds(Index rows, Index k, Index columns, bool far, Index calls) {
  const Kernels<T>& kernels = kernel_table().of<T>();
  const Scratch::Frame frame;
  auto a = filled<T>(rows * k), panels = filled<T>(k * columns), out = filled<T>(rows * columns);
  Product<T> p{};
  p.rows = rows;
  p.columns = p.end = columns;
  p.segments[0] = {{a.get(), kernels.lanes, k}, k, panels.get()};
  p.out = {out.get(), kernels.lanes, columns};
  p.far = far;
  return seconds_of(calls, [&] { kernels.product(p); });
}

template <class T>
double outer_seconds(Index rows, Index units, Index columns, Index calls) {
  const Kernels<T>& kernels = kernel_table().of<T>();
  const Scratch::Frame frame;
  // Strips lie a few rows apart from multiples of 4 KiB, as those of da do.
  const Index strip_rows = rows + 3;
  auto left = filled<T>(strip_rows * units), right = filled<T>(rows * columns);
  auto out = filled<T>(units * columns);
  Outer<T> p{};
  p.sum = {1, rows};
  p.left = {left.get(), strip_rows * kernels.lanes, kernels.lanes};
  p.end = units;
  p.right = {right.get(), 1, columns};
  p.columns = p.out_stride = columns;
  p.out = out.get();
  return seconds_of(calls, [&] { kernels.outer(p); });
}

template double fma_peak<float>(int, bool);
template double fma_peak<double>(int, bool);
template double product_seconds<float>(Index, Index, Index, bool, Index);
template double product_seconds<double>(Index, Index, Index, bool, Index);
template double outer_seconds<float>(Index, Index, Index, Index);
template double outer_seconds<double>(Index, Index, Index, Index);

}  // namespace bptt
