// ThreadSanitizer looks at the kernels for GPUs: every fibre is a thread to it, and nothing orders
// the memory of two but barriers and counters. It finds nothing; and every word that orders memory
// is needed: without any one of them it finds a race, or the results are wrong.
#include "run_on_fibres.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" const char* __tsan_default_options() { return "halt_on_error=1:exitcode=66"; }

namespace bptt::test {
namespace {

// Rows that end, and all that can come in.
CudaLayer<double> layer_of(CudaCell cell, Index batch, Index hidden) {
  return {{cell, 3, batch, hidden, true, true, true, true}, 51};
}

void no_cell_has_a_race() {
  for (int cell = 0; cell < 5; ++cell) {
    const CudaLayer<double> layer = layer_of(static_cast<CudaCell>(cell), 4, 33);
    const Written<double> expected = PlainLoops(layer).run();
    for (Way way : {Way::one_block, Way::cluster, Way::grid, Way::steps}) {
      const Ran<double> ran = run(layer, way, {1});
      CHECK_EQUAL(ran.forward.fault + ran.backward.fault, "");
      CHECK_AT_MOST(error_of(ran.written, expected), 1e-12);
    }
  }
}

// By a product of fused multiply-adds, and by tensor cores.
struct Exact {
  static constexpr Way kWays[] = {Way::one_block, Way::cluster, Way::grid};
  const CudaLayer<double> layer = layer_of(CudaCell::lstm, 3, 17);
  const Written<double> expected = PlainLoops(layer).run();

  Ran<double> run(Way way, const Schedule& schedule) const {
    return test::run(layer, way, schedule);
  }
  bool is_right(const Written<double>& found, Way) const {
    return error_of(found, expected) <= 1e-12;
  }
};
struct ByTensorCores {
  static constexpr Way kWays[] = {Way::cluster, Way::grid};  // one block: as above
  CudaLayer<float> layer = CudaLayer<float>(layer_of(CudaCell::tanh, 3, 17));

  Ran<float> run(Way way, const Schedule& schedule) const { return run_mma(layer, way, schedule); }
  bool is_right(const Written<float>& found, Way way) const {
    return error_of_steps(layer, format_of(layer.shape.cell, way), found) <= 5e-6;
  }
};

void no_product_by_tensor_cores_has_a_race() {
  const ByTensorCores product{CudaLayer<float>(layer_of(CudaCell::gru, 3, 17))};
  for (Way way : kMmaWays) {
    const Ran<float> ran = product.run(way, {1});
    CHECK_EQUAL(ran.forward.fault + ran.backward.fault, "");
    CHECK(product.is_right(ran.written, way));
  }
}

// Whether a process of its own finds nothing wrong in any of some orders of threads.
template <class Product>
bool passes(const Product& product, Way way, Schedule schedule) {
  std::cout.flush();
  const pid_t child = fork();
  if (child == 0) {
    const int nowhere = open("/dev/null", O_WRONLY);
    dup2(nowhere, 1), dup2(nowhere, 2);
    for (schedule.seed = 1; schedule.seed <= 5; ++schedule.seed) {
      const auto ran = product.run(way, schedule);
      const bool right = product.is_right(ran.written, way);
      if (!right || !(ran.forward.fault + ran.backward.fault).empty()) _exit(1);
    }
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status == 0;
}

template <class Product>
void every_word_is_needed() {
  const Product product;
  for (Way way : Product::kWays) {
    const auto ran = product.run(way, {1});
    const auto check = [&](const fibres::Place& place, const char* pass, Schedule schedule) {
      const Scope scope([&](std::ostream& out) {
        out << kWays[static_cast<int>(way)] << ", " << pass << ", without the " << place.word
            << " at " << place.file << ':' << place.line << (place.first ? ", first" : ", later");
      });
      CHECK(!passes(product, way, schedule));
    };
    for (const fibres::Place& place : ran.forward.places)
      check(place, "forward", {0, &place, nullptr});
    for (const fibres::Place& place : ran.backward.places)
      check(place, "back", {0, nullptr, &place});
    CHECK(ran.forward.places.size() >= 3 && ran.backward.places.size() >= 4);
    std::cout << kWays[static_cast<int>(way)] << ": " << ran.forward.places.size() << " forward, "
              << ran.backward.places.size() << " back\n";
  }
}

}  // namespace
}  // namespace bptt::test

int main() {
  using namespace bptt::test;
  return run_tests(
      {{"no cell has a race", no_cell_has_a_race},
       {"no product by tensor cores has a race", no_product_by_tensor_cores_has_a_race},
       {"every word that orders memory is needed", every_word_is_needed<Exact>},
       {"by tensor cores, too", every_word_is_needed<ByTensorCores>}});
}
