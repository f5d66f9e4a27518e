// The kernels of csrc/cuda on a GPU: what they compute (`tests`), what it costs that blocks meet
// (`barriers`), and how long a layer takes (`steps`). The last two print a line of JSON for each
// figure. For nvcc; bench/device.sh compiles and runs it.
#include "cuda_layer.h"

#include "cuda/words.cuh"

#include "arrays.h"
#include "cuda/hold_backward.cuh"
#include "cuda/hold_forward.cuh"
#include "cuda/step.cuh"
#include "cuda_checks.h"
#include "device.cuh"

namespace bptt::test {
namespace {

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, 1)
    forward_kernel(cuda::ForwardPass<typename Tile::T> p, int blocks, unsigned* counters) {
  cuda::hold_forward<Tile>(p, blocks, counters);
}
template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, 1)
    backward_kernel(cuda::BackwardPass<typename Tile::T> p, int blocks, unsigned* counters,
                    typename Tile::T* exchange) {
  cuda::hold_backward<Tile>(p, blocks, counters, exchange);
}
template <class T, class Cell>
__global__ void step_forward_kernel(cuda::ForwardPass<T> p, cuda::Index t, const T* recurrent) {
  cuda::step_forward<T, Cell>(p, t, recurrent);
}
template <class T, class Cell>
__global__ void step_backward_kernel(cuda::BackwardPass<T> p, cuda::Index t, const T* recurrent,
                                     T* carry) {
  cuda::step_backward<T, Cell>(p, t, recurrent, carry);
}

// The passes of a layer with all arrays on the device.
template <class T>
struct DevicePasses {
  OnDevice memory;
  cuda::ForwardPass<T> forward;
  cuda::BackwardPass<T> backward;

  DevicePasses(const CudaLayer<T>& l, const Written<T>& w) {
    const cuda::Rows rows{l.shape.steps, l.shape.batch,
                          l.shape.ragged ? memory.of(l.offsets) : nullptr};
    const Index H = l.shape.hidden;
    forward = {rows,
               H,
               memory.of(l.projected),
               memory.of(l.w_hh),
               memory.of(l.b_hh),
               memory.of(l.state),
               memory.of(l.state_c),
               memory.of(w.y),
               memory.of(w.c),
               memory.of(w.saved)};
    backward = {rows,
                H,
                forward.w_hh,
                forward.state,
                forward.state_c,
                forward.y,
                forward.c,
                forward.saved,
                memory.of(l.dy),
                memory.of(l.dc),
                memory.of(l.dlast),
                memory.of(l.dlast_c),
                memory.of(w.delta),
                memory.of(w.dstate),
                memory.of(w.dstate_c)};
  }

  void fetch(Written<T>& w) {
    BPTT_CUDA(cudaDeviceSynchronize());
    memory.fetch(w.y), memory.fetch(w.c), memory.fetch(w.saved);
    memory.fetch(w.delta), memory.fetch(w.dstate), memory.fetch(w.dstate_c);
  }
};

// A layer cut into tiles, and what its launches take beside the arrays of its passes.
template <class Tile>
class Held {
 public:
  using T = typename Tile::T;

  explicit Held(const LayerShape& shape)
      : blocks_(up(shape.hidden, Tile::kUnits)),
        groups_(up(shape.batch, Tile::kRows)),
        counters_(static_cast<Size>(groups_)),
        exchange_(static_cast<Size>(groups_ * cuda::backward_exchange<Tile>(blocks_))) {}

  bool empty() const { return groups_ == 0; }
  int blocks() const { return blocks_ * groups_; }

  void forward(const cuda::ForwardPass<T>& pass) {
    launch_on_device(launch(cuda::forward_bytes<Tile>()), forward_kernel<Tile>, pass, blocks_,
                     counters());
  }
  void backward(const cuda::BackwardPass<T>& pass) {
    launch_on_device(launch(cuda::backward_bytes<Tile>(blocks_)), backward_kernel<Tile>, pass,
                     blocks_, counters(), memory_.of(exchange_));
  }

 private:
  static int up(Index n, Index by) { return static_cast<int>((n + by - 1) / by); }

  DeviceLaunch launch(int bytes) const {
    constexpr bool kGrid = Tile::Exchange::kThroughL2, kCluster = Tile::Exchange::kPeers && !kGrid;
    return {blocks(), Tile::kThreads, kCluster ? blocks_ : 1, kGrid, static_cast<Size>(bytes)};
  }
  unsigned* counters() {
    unsigned* const device = memory_.of(counters_);
    BPTT_CUDA(cudaMemsetAsync(device, 0, counters_.size() * sizeof(unsigned)));
    return device;
  }

  int blocks_, groups_;
  std::vector<unsigned> counters_;
  std::vector<T> exchange_;
  OnDevice memory_;
};

template <class T, class Tile>
void run_held(const CudaLayer<T>& layer, DevicePasses<T>& passes) {
  Held<Tile> held(layer.shape);
  if (held.empty()) return;
  held.forward(passes.forward);
  held.backward(passes.backward);
  BPTT_CUDA(cudaDeviceSynchronize());
}

template <class T, class Cell>
void run_steps(const CudaLayer<T>& layer, DevicePasses<T>& passes, Written<T>& written) {
  const DeviceLaunch launch{3, 32};
  StepProducts<T> products(layer);
  std::vector<T> carry(layer.state.size());
  OnDevice& memory = passes.memory;
  const T* const recurrent = memory.of(products.recurrent);
  for (cuda::Index t = 0; t < layer.shape.steps; ++t) {
    products.forward(t, written);
    memory.update(products.recurrent);
    launch_on_device(launch, step_forward_kernel<T, Cell>, passes.forward, t, recurrent);
    passes.fetch(written);
  }
  for (cuda::Index t = layer.shape.steps - 1; t >= -1; --t) {
    if (t + 1 < layer.shape.steps) products.backward(t + 1, written);
    memory.update(products.recurrent);
    launch_on_device(launch, step_backward_kernel<T, Cell>, passes.backward, t, recurrent,
                     memory.of(carry));
    passes.fetch(written);
  }
}

template <class Cell>
void run_cell(const CudaLayer<double>& layer, Way way, DevicePasses<double>& passes,
              Written<double>& written) {
  using T = double;
  switch (way) {
    case Way::one_block:
      return run_held<T, cuda::Tile<T, Cell, cuda::OneBlock, 64, 64, 128, 4>>(layer, passes);
    case Way::cluster:
      return run_held<T, cuda::Tile<T, Cell, cuda::Cluster, 16, 64, 64, 3>>(layer, passes);
    case Way::grid:
      return run_held<T, cuda::Tile<T, Cell, cuda::Grid, 16, 64, 64, 3>>(layer, passes);
    default: return run_steps<T, Cell>(layer, passes, written);
  }
}

Ran<double> run(const CudaLayer<double>& layer, Way way) {
  Ran<double> ran{layer.unwritten(), {}, {}};
  DevicePasses<double> passes(layer, ran.written);
  const auto of = [&]<class Cell>(Cell*) { run_cell<Cell>(layer, way, passes, ran.written); };
  switch (layer.shape.cell) {
    case CudaCell::linear:
      of(static_cast<cuda::Elman<double, cuda::Linear<double>>*>(nullptr));
      break;
    case CudaCell::tanh: of(static_cast<cuda::Elman<double, cuda::Tanh<double>>*>(nullptr)); break;
    case CudaCell::relu: of(static_cast<cuda::Elman<double, cuda::Relu<double>>*>(nullptr)); break;
    case CudaCell::lstm: of(static_cast<cuda::Lstm<double>*>(nullptr)); break;
    case CudaCell::gru: of(static_cast<cuda::Gru<double>*>(nullptr)); break;
  }
  passes.fetch(ran.written);
  return ran;
}

Ran<float> run_mma(const CudaLayer<float>& layer, Way way) {
  Ran<float> ran{layer.unwritten(), {}, {}};
  DevicePasses<float> passes(layer, ran.written);
  with_mma_tile(layer.shape.cell, way, [&]<class Tile> { run_held<float, Tile>(layer, passes); });
  passes.fetch(ran.written);
  return ran;
}

int compute_capability() {
  int major = 0, minor = 0;
  BPTT_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  BPTT_CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0));
  return 10 * major + minor;
}

bool has(Way way) { return way != Way::cluster || compute_capability() >= 90; }

void every_pair_of_sizes_cells_and_ways() {
  const auto on_device = [](const CudaLayer<double>& layer, Way way, const Schedule&) {
    return run(layer, way);
  };
  check_every_pair(on_device, has);
}

void every_pair_by_tensor_cores() {
  const auto on_device = [](const CudaLayer<float>& layer, Way way, const Schedule&) {
    return run_mma(layer, way);
  };
  check_every_pair_of_mma(on_device, has);
}

void the_same_bits_twice() {
  const LayerShape shape{CudaCell::lstm, 64, 33, 64, true, true, true, true};
  const CudaLayer<double> layer(shape, 42);
  for (Way way : {Way::one_block, Way::cluster, Way::grid, Way::steps}) {
    if (!has(way)) continue;
    const Ran<double> first = run(layer, way), second = run(layer, way);
    first.written.for_each_with(second.written, [&](const char*, const auto& a, const auto& b) {
      CHECK(std::equal(a.begin(), a.end(), b.begin(), same_bits<double>));
    });
  }
}

// --- Figures -----------------------------------------------------------------------------------

template <class Exchange>
__global__ void meet_often(int blocks, unsigned* counters, int times) {
  cuda::Member me = cuda::member_of(blocks, counters);
  for (int i = 0; i < times; ++i) Exchange::meet(me);
}

template <class Exchange>
void print_barrier(const char* name, int blocks) {
  constexpr int kTimes = 10000;
  const std::vector<unsigned> counters(1);
  OnDevice memory;
  unsigned* const counter = memory.of(counters);
  const bool grid = Exchange::kThroughL2, cluster = Exchange::kPeers && !grid;
  const float ms = device_ms([&] {
    BPTT_CUDA(cudaMemsetAsync(counter, 0, sizeof(unsigned)));
    launch_on_device({blocks, 256, cluster ? blocks : 1, grid}, meet_often<Exchange>, blocks,
                     counter, kTimes);
  });
  std::printf("{\"barrier\": \"%s\", \"blocks\": %d, \"ns\": %.1f}\n", name, blocks,
              static_cast<double>(ms) * 1e6 / kTimes);
}

void print_barriers() {
  print_barrier<cuda::OneBlock>("block", 1);
  for (int blocks : {2, 4, 8, 16}) {
    if (has(Way::cluster)) print_barrier<cuda::Cluster>("cluster", blocks);
  }
  for (int blocks : {2, 8, 16, 32, 64, 128}) print_barrier<cuda::Grid>("grid", blocks);
}

template <class Tile>
void print_steps(const char* dtype, const char* exchange, const LayerShape& shape) {
  using T = typename Tile::T;
  const CudaLayer<double> wide(shape, 44);
  const CudaLayer<T> layer(wide);
  const Written<T> written = layer.unwritten();
  DevicePasses<T> passes(layer, written);
  Held<Tile> held(shape);
  const double steps = static_cast<double>(shape.steps) * 1e-3;
  const double forward = device_ms([&] { held.forward(passes.forward); }) / steps;
  const double backward = device_ms([&] { held.backward(passes.backward); }) / steps;
  std::printf(
      "{\"cell\": \"%s\", \"dtype\": \"%s\", \"exchange\": \"%s\", \"T\": %td, \"B\": %td, "
      "\"H\": %td, \"rows\": %d, \"blocks\": %d, \"forward_us_a_step\": %.3f, "
      "\"backward_us_a_step\": %.3f}\n",
      kCudaCells[static_cast<int>(shape.cell)], dtype, exchange, shape.steps, shape.batch,
      shape.hidden, Tile::kRows, held.blocks(), forward, backward);
  std::fflush(stdout);
}

template <class Cell, CudaCell kCell>
void print_steps_of() {
  const auto shape = [](Index batch, Index hidden) {
    return LayerShape{kCell, 1024, batch, hidden, false, false, false, false};
  };
  using cuda::Cluster, cuda::Grid, cuda::OneBlock, cuda::Tile;
  for (Index batch : {1, 16, 64}) {
    print_steps<Tile<float, Cell, OneBlock, 64, 64, 256, 2>>("float32", "block", shape(batch, 64));
    if (has(Way::cluster)) {
      print_steps<Tile<float, Cell, Cluster, 64, 128, 256, 2>>("float32", "cluster",
                                                               shape(batch, 128));
      print_steps<Tile<float, Cell, Cluster, 32, 256, 256, 8>>("float32", "cluster",
                                                               shape(batch, 256));
    }
  }
  using cuda::Bf16, cuda::MmaTile, cuda::Tf32;
  if (has(Way::cluster)) {
    const LayerShape wide = shape(16, 256);
    print_steps<MmaTile<Tf32, Cell, Cluster, 16, 256, 256, 8, 16, 16>>("tf32", "cluster", wide);
    print_steps<MmaTile<Bf16, Cell, Cluster, 32, 256, 256, 8, 16, 16>>("bf16", "cluster", wide);
  }
  // All groups have to run at the same time: 8 of 16 blocks, or 1 of 128.
  print_steps<Tile<float, Cell, Grid, 32, 256, 256, 2>>("float32", "grid", shape(16, 256));
  print_steps<Tile<float, Cell, Grid, 16, 512, 256, 8>>("float32", "grid", shape(16, 512));
  print_steps<Tile<float, Cell, Grid, 8, 1024, 256, 8>>("float32", "grid", shape(8, 1024));
}

}  // namespace
}  // namespace bptt::test

int main(int argc, char** argv) {
  using namespace bptt::test;
  int count = 0;
  if (const cudaError_t status = cudaGetDeviceCount(&count); status != cudaSuccess || count == 0) {
    std::printf("skipped: no GPU: %s\n", cudaGetErrorString(status));
    return kSkipped;
  }
  const std::string stage = argc == 2 ? argv[1] : "";
  if (stage == "tests") {
    return run_tests(
        {{"every pair of sizes, cells and ways of exchange", every_pair_of_sizes_cells_and_ways},
         {"the same by tensor cores", every_pair_by_tensor_cores},
         {"the same bits twice", the_same_bits_twice}});
  } else if (stage == "barriers") {
    print_barriers();
  } else if (stage == "steps") {
    print_steps_of<bptt::cuda::Lstm<float>, CudaCell::lstm>();
    print_steps_of<bptt::cuda::Gru<float>, CudaCell::gru>();
  } else {
    std::printf("usage: %s tests|barriers|steps\n", argv[0]);
    return 2;
  }
  return 0;
}
