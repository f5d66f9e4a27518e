// The kernels of csrc/cuda, run on fibres.
#pragma once

#include "cuda_layer.h"
#include "fibres/words.h"

#include "cuda_mma.h"

#include "cuda/hold_backward.cuh"
#include "cuda/hold_forward.cuh"
#include "cuda/step.cuh"

namespace bptt::test {

template <class T, class Tile>
Ran<T> run_held(const CudaLayer<T>& layer, const Schedule& schedule) {
  Ran<T> ran{layer.unwritten(), {}, {}};
  const auto up = [](Index n, Index by) { return static_cast<int>((n + by - 1) / by); };
  const int blocks = up(layer.shape.hidden, Tile::kUnits),
            groups = up(layer.shape.batch, Tile::kRows);
  fibres::Launch launch{groups * blocks, Tile::kThreads, blocks, 0, schedule.seed, nullptr};
  std::vector<unsigned> counters(static_cast<Size>(groups));

  const cuda::ForwardPass<T> forward = layer.forward(ran.written);
  launch.shared_bytes = cuda::forward_bytes<Tile>();
  launch.without = schedule.without_forward;
  ran.forward =
      fibres::launch(launch, [&] { cuda::hold_forward<Tile>(forward, blocks, counters.data()); });

  const cuda::BackwardPass<T> backward = layer.backward(ran.written);
  launch.shared_bytes = static_cast<Size>(cuda::backward_bytes<Tile>(blocks));
  launch.without = schedule.without_backward;
  std::fill(counters.begin(), counters.end(), 0);
  std::vector<T> exchange(static_cast<Size>(groups * cuda::backward_exchange<Tile>(blocks)),
                          std::numeric_limits<T>::quiet_NaN());
  ran.backward = fibres::launch(launch, [&] {
    cuda::hold_backward<Tile>(backward, blocks, counters.data(), exchange.data());
  });
  return ran;
}

template <class T, class Cell>
Ran<T> run_steps(const CudaLayer<T>& layer, const Schedule& schedule) {
  Ran<T> ran{layer.unwritten(), {}, {}};
  const fibres::Launch launch{3, 32, 1, 0, schedule.seed, nullptr};
  StepProducts<T> products(layer);
  const cuda::ForwardPass<T> forward = layer.forward(ran.written);
  for (Index t = 0; t < layer.shape.steps; ++t) {
    products.forward(t, ran.written);
    fibres::launch(launch,
                   [&] { cuda::step_forward<T, Cell>(forward, t, products.recurrent.data()); });
  }
  const cuda::BackwardPass<T> backward = layer.backward(ran.written);
  std::vector<T> carry(layer.state.size(), std::numeric_limits<T>::quiet_NaN());
  for (Index t = layer.shape.steps - 1; t >= -1; --t) {
    if (t + 1 < layer.shape.steps) products.backward(t + 1, ran.written);
    fibres::launch(launch, [&] {
      cuda::step_backward<T, Cell>(backward, t, products.recurrent.data(), carry.data());
    });
  }
  return ran;
}

// In tiles small enough for fibres; H is at most 64.
template <class T, class Cell>
Ran<T> run_cell(const CudaLayer<T>& layer, Way way, const Schedule& schedule) {
  switch (way) {
    case Way::one_block:
      return run_held<T, cuda::Tile<T, Cell, cuda::OneBlock, 64, 64, 128, 4>>(layer, schedule);
    case Way::cluster:
      return run_held<T, cuda::Tile<T, Cell, cuda::Cluster, 16, 64, 64, 3>>(layer, schedule);
    case Way::grid:
      return run_held<T, cuda::Tile<T, Cell, cuda::Grid, 16, 64, 64, 3>>(layer, schedule);
    default: return run_steps<T, Cell>(layer, schedule);
  }
}

template <class T>
Ran<T> run(const CudaLayer<T>& layer, Way way, const Schedule& schedule = {}) {
  switch (layer.shape.cell) {
    case CudaCell::linear:
      return run_cell<T, cuda::Elman<T, cuda::Linear<T>>>(layer, way, schedule);
    case CudaCell::tanh: return run_cell<T, cuda::Elman<T, cuda::Tanh<T>>>(layer, way, schedule);
    case CudaCell::relu: return run_cell<T, cuda::Elman<T, cuda::Relu<T>>>(layer, way, schedule);
    case CudaCell::lstm: return run_cell<T, cuda::Lstm<T>>(layer, way, schedule);
    default: return run_cell<T, cuda::Gru<T>>(layer, way, schedule);
  }
}

inline Ran<float> run_mma(const CudaLayer<float>& layer, Way way, const Schedule& schedule = {}) {
  Ran<float> ran;
  with_mma_tile(layer.shape.cell, way,
                [&]<class Tile> { ran = run_held<float, Tile>(layer, schedule); });
  return ran;
}

}  // namespace bptt::test
