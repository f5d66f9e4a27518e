// The tiles with products by tensor cores that tests run, small enough for fibres: of every cell
// and way of exchange one, in which every format meets each cell and each way. H is at most 64.
#pragma once

#include <tuple>

#include "cuda/tile.cuh"
#include "cuda_layer.h"

namespace bptt::test {

inline constexpr Way kMmaWays[] = {Way::one_block, Way::cluster, Way::grid};

inline Format format_of(CudaCell cell, Way way) {
  return static_cast<Format>(1 + (static_cast<int>(cell) + static_cast<int>(way)) % 3);
}
template <int kNumber>
using FormatAt = std::tuple_element_t<kNumber % 3, std::tuple<cuda::Bf16, cuda::F16, cuda::Tf32>>;

template <int kCell, class Cell, class F>
void with_mma_tile_of(Way way, F&& f) {
  using cuda::Cluster, cuda::Grid, cuda::MmaTile, cuda::OneBlock;
  switch (way) {
    case Way::one_block:
      return f
          .template operator()<MmaTile<FormatAt<kCell>, Cell, OneBlock, 64, 64, 128, 8, 27, 27>>();
    case Way::cluster:  // most of W_hh is in shared memory
      return f
          .template operator()<MmaTile<FormatAt<kCell + 1>, Cell, Cluster, 16, 64, 64, 8, 3, 5>>();
    default:
      return f
          .template operator()<MmaTile<FormatAt<kCell + 2>, Cell, Grid, 16, 64, 64, 16, 2, 27>>();
  }
}

// Calls f.operator()<Tile>().
template <class F>
void with_mma_tile(CudaCell cell, Way way, F&& f) {
  using T = float;
  switch (cell) {
    case CudaCell::linear: return with_mma_tile_of<0, cuda::Elman<T, cuda::Linear<T>>>(way, f);
    case CudaCell::tanh: return with_mma_tile_of<1, cuda::Elman<T, cuda::Tanh<T>>>(way, f);
    case CudaCell::relu: return with_mma_tile_of<2, cuda::Elman<T, cuda::Relu<T>>>(way, f);
    case CudaCell::lstm: return with_mma_tile_of<3, cuda::Lstm<T>>(way, f);
    default: return with_mma_tile_of<4, cuda::Gru<T>>(way, f);
  }
}

// The largest error of what was written, each step by itself.
inline double error_of_steps(const CudaLayer<float>& layer, Format format,
                             const Written<float>& found) {
  const CudaLayer<double> wide(layer);
  const Written<double> follow = widened(found);
  return error_of(follow, PlainLoops(wide, format, &follow).run());
}

}  // namespace bptt::test
