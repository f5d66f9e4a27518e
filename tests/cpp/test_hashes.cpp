// The same bits on every CPU: the results of every leaf kernel, and of the engine on top of them,
// have the hashes below, one for all ISAs with FMA and one for the generic kernels.
//
// test_bits compares the ISAs of one CPU; those of another architecture it cannot see. What goes in
// is made of integers by operations that are exact or rounded correctly (ldexp, sqrt), and no libm
// has a part in it. Where the promise is that bits change, a failure prints the new hashes.
#include <cstdio>
#include <vector>

#include "isa.h"
#include "network.h"
#include "panels.h"

namespace bptt::test {
namespace {

// FNV-1a (Fowler, Noll, Vo), a value at a time. All NaNs are one.
class Hash {
 public:
  template <class T>
  void add(T value) {
    using Word = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
    state_ ^= value == value ? std::bit_cast<Word>(value) : ~std::uint64_t{0};
    state_ *= 0x100000001b3;
    state_ ^= state_ >> 32;  // or high bits of a word never reach low ones
  }
  template <class Range>
  void add_all(const Range& values) {
    for (const auto& value : values) add(value);
  }
  template <class T>
  void add_matrix(Matrix<T>& matrix) {
    matrix.for_each([&](Index, Index, T& value) { add(value); });
  }
  std::string text() const {
    char digits[17];
    std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(state_));
    return digits;
  }

 private:
  std::uint64_t state_ = 0xcbf29ce484222325;
};

template <class T>
Matrix<T> random_matrix(Index rows, Index columns, Storage storage, Random& random) {
  Matrix<T> matrix(rows, columns, kernels<T>().lanes, storage);
  matrix.for_each([&](Index, Index, T& value) { value = random.uniform<T>(); });
  return matrix;
}

// Over the whole range of exp and beyond it, and around zero.
template <class T>
std::string hash_of_function(void (*function)(const T* x, T* y, Index n)) {
  Random random(31);
  const T limit = sizeof(T) == 4 ? T(112) : T(770);
  std::vector<T> x;
  for (int i = 0; i < 10'001; ++i) {
    x.insert(x.end(), {limit * random.uniform<T>(), T(3) * random.uniform<T>(), random.special<T>(),
                       std::ldexp(random.uniform<T>(), -24)});
  }
  std::vector<T> y(x.size());
  function(x.data(), y.data(), static_cast<Index>(x.size()));
  Hash hash;
  hash.add_all(y);
  return hash.text();
}

template <class T>
std::string hash_of_exp() {
  return hash_of_function(kernels<T>().exp);
}

template <class T>
std::string hash_of_tanh() {
  return hash_of_function(kernels<T>().tanh);
}

template <class T>
std::string hash_of_sigmoid() {
  return hash_of_function(kernels<T>().sigmoid);
}

template <class T, CellId Cell>
std::string hash_of_cell() {
  Random random(32);
  const bptt::Cell<T>& cell = kernels<T>().cells[static_cast<std::size_t>(Cell)];
  Hash hash;
  for (Index units : {1, 7, 37, 130}) {
    constexpr Index kRows = 5;
    Matrix<T> y(kRows, units, kernels<T>().lanes, Storage::row_major);
    Matrix<T> ds(kRows, units, kernels<T>().lanes, Storage::strips);
    for (Matrix<T>* matrix : {&y, &ds}) {
      matrix->for_each([&](Index, Index, T& value) { value = random.special<T>(); });
    }
    cell.forward({kRows, 0, units, {}, y.view()});
    cell.backward({kRows, 0, units, std::as_const(y).view(), ds.view()});
    hash.add_matrix(y);
    hash.add_matrix(ds);
  }
  return hash.text();
}

// Two segments on top of a bias, for row counts that end in every height of a tile.
template <class T>
std::string hash_of_product() {
  Random random(33);
  const Kernels<T>& k = kernels<T>();
  Hash hash;
  for (Index columns : {1, 37, 130}) {
    for (Index rows = 1; rows <= 29; ++rows) {
      const Index depth[] = {5, 67};
      const Matrix<T> bias = random_matrix<T>(1, columns, Storage::one_row, random);
      Product<T> call{rows, columns, 0, columns, bias.view(), {}, {}};
      std::vector<Matrix<T>> left;
      std::vector<GuardedArray<T>> panels;
      for (int s = 0; s < 2; ++s) {
        left.push_back(random_matrix<T>(rows, depth[s], Storage::row_major, random));
        const auto right = random_matrix<T>(depth[s], columns, Storage::row_major, random);
        panels.push_back(packed(right, {columns, depth[s], k.product_width, k.lanes}, 0));
        call.segments[s] = {std::as_const(left.back()).view(), depth[s], panels.back().get()};
      }
      Matrix<T> out(rows, columns, k.lanes, Storage::row_major);
      call.out = out.view();
      k.product(call);
      hash.add_matrix(out);
    }
  }
  return hash.text();
}

template <class T>
std::string hash_of_outer() {
  Random random(34);
  const Kernels<T>& k = kernels<T>();
  Hash hash;
  for (Index units : {1, 7, 37}) {
    for (Index columns : {1, 23, 130}) {
      for (Index rows : {1, 50, 256}) {
        const Matrix<T> left = random_matrix<T>(rows, units, Storage::strips, random);
        const Matrix<T> right = random_matrix<T>(rows, columns, Storage::row_major, random);
        const GuardedArray<T> panels = packed(right, {columns, rows, k.outer_width, k.lanes}, 0);
        Matrix<T> out = random_matrix<T>(units, columns, Storage::row_major, random);
        k.outer({{1, rows},
                 left.view(),
                 rows,
                 0,
                 units,
                 {panels.get(), rows, 0},
                 0,
                 rows,
                 columns,
                 out.view().data,
                 out.view().row_stride});
        hash.add_matrix(out);
      }
    }
  }
  return hash.text();
}

template <class T>
std::string hash_of_column_sums() {
  Random random(35);
  Hash hash;
  for (Index units : {1, 7, 37, 130}) {
    for (Index rows : {1, 16, 50, 256}) {
      const Matrix<T> left = random_matrix<T>(rows, units, Storage::strips, random);
      std::vector<T> out(static_cast<std::size_t>(units), T(1));
      kernels<T>().column_sums({{1, rows}, left.view(), rows, 0, units, {out.data(), nullptr}});
      hash.add_all(out);
    }
  }
  return hash.text();
}

// The gradients, and the loss unless it is cross_entropy's, whose log is the C library's.
template <class T, LossId Loss>
std::string hash_of_loss() {
  Random random(36);
  Hash hash;
  for (Index outputs : {1, 3, 10, 37, 130}) {
    constexpr Index kRows = 7;
    Matrix<T> o = random_matrix<T>(kRows, outputs, Storage::row_major, random);
    o.for_each([](Index, Index, T& value) { value *= T(8); });
    const Matrix<T> target = random_matrix<T>(kRows, outputs, Storage::row_major, random);
    const Matrix<T> weights = random_matrix<T>(1, kRows, Storage::row_major, random);
    std::int64_t ids[kRows];
    for (std::int64_t& id : ids) id = random.below(outputs);
    double losses[kRows];
    kernels<T>().losses[static_cast<int>(Loss)]({kRows, outputs, o.view().data, outputs,
                                                 target.view().data, ids, weights.view().data,
                                                 T(0.1), losses});
    hash.add_matrix(o);
    if (Loss != LossId::cross_entropy) hash.add_all(losses);
  }
  return hash.text();
}

template <class T>
void add_results(Hash& hash, const Results<T>& results) {
  results.for_each_with(results,
                        [&](const char*, const auto& array, const auto&) { hash.add_all(array); });
}

// More steps than a block has; two threads split rows, hidden units, and nothing.
constexpr Sizes kSizes[] = {{40, 19, 5, 37, 3}, {90, 3, 31, 200, 3}, {260, 1, 3, 67, 9}};

template <class T, CellId Cell>
std::string hash_of_engine() {
  Hash hash;
  for (const Sizes& sizes : kSizes) {
    const Network<T> network(Cell, sizes, Biases::both, 37);
    add_results(hash, run_both(network, 2));
    const auto squared = run_value_and_grad(network, {LossId::squared_error, -1, true}, 2);
    add_results(hash, squared);
    hash.add(squared.loss);
    add_results(hash, run_value_and_grad(network, {LossId::cross_entropy, 5, false}, 2));
  }
  return hash.text();
}

struct Row {
  const char* name;
  std::string (*hash)();
  const char* with_fma;
  const char* generic;
};

const Row kRows[] = {
    {"float32 exp", hash_of_exp<float>, "9cebc43016c699d2", "9b14ece4048de9e7"},
    {"float64 exp", hash_of_exp<double>, "2686c1cf2627c038", "a2abe602549d8888"},
    {"float32 sigmoid", hash_of_sigmoid<float>, "6c6f88d2579e6509", "0c3f68def71388cb"},
    {"float64 sigmoid", hash_of_sigmoid<double>, "f414bb2445cc0cd3", "5fb04cadb39442de"},
    {"float32 tanh", hash_of_tanh<float>, "6a134154b3535e73", "4109b8aa39c43c5e"},
    {"float64 tanh", hash_of_tanh<double>, "5f62d09f4aa2ba45", "c744d557e6b6b5fd"},
    {"float32 cell linear", hash_of_cell<float, Cells::linear>, "59cbc30150be8273",
     "59cbc30150be8273"},
    {"float64 cell linear", hash_of_cell<double, Cells::linear>, "c66234918368f523",
     "c66234918368f523"},
    {"float32 cell tanh", hash_of_cell<float, Cells::tanh>, "6ee90f82cc0e9bba", "4f708de71aa24bcb"},
    {"float64 cell tanh", hash_of_cell<double, Cells::tanh>, "85fbc007fdae48ed",
     "4d0da37b5bc722c3"},
    {"float32 cell relu", hash_of_cell<float, Cells::relu>, "0258e576ea82cfc1", "0258e576ea82cfc1"},
    {"float64 cell relu", hash_of_cell<double, Cells::relu>, "894e753fb842e856",
     "894e753fb842e856"},
    {"float32 product", hash_of_product<float>, "9cbba9eeee6b953b", "4cdba3979039dec1"},
    {"float64 product", hash_of_product<double>, "27065f5b5dcef97f", "c4765c8ab407c686"},
    {"float32 outer", hash_of_outer<float>, "d7774c0a4f66d039", "e73ad6e8e25ce589"},
    {"float64 outer", hash_of_outer<double>, "cd5373037bae0a28", "67d0f6d6bf808fb9"},
    {"float32 column sums", hash_of_column_sums<float>, "c8843dd46a13910a", "c8843dd46a13910a"},
    {"float64 column sums", hash_of_column_sums<double>, "06c93ed92f2aeb94", "06c93ed92f2aeb94"},
    {"float32 squared error", hash_of_loss<float, LossId::squared_error>, "22a8911acc66d3b9",
     "22a8911acc66d3b9"},
    {"float64 squared error", hash_of_loss<double, LossId::squared_error>, "04e86825c3305cf9",
     "04e86825c3305cf9"},
    {"float32 cross entropy", hash_of_loss<float, LossId::cross_entropy>, "c7b8da4ebbe557b7",
     "b06558b3aa8a5856"},
    {"float64 cross entropy", hash_of_loss<double, LossId::cross_entropy>, "1eae171c7d79e139",
     "28e8a54e88f65ddf"},
    {"float32 engine linear", hash_of_engine<float, Cells::linear>, "8f2bf3613d31c5da",
     "b65b41f11b09c80b"},
    {"float64 engine linear", hash_of_engine<double, Cells::linear>, "608cccbb5e3216c7",
     "0348c73a746ca4c7"},
    {"float32 engine tanh", hash_of_engine<float, Cells::tanh>, "fa5f774bd91d75ea",
     "2d1e30a77092632d"},
    {"float64 engine tanh", hash_of_engine<double, Cells::tanh>, "c674626ed6beb125",
     "9fc01b34241a776f"},
    {"float32 engine relu", hash_of_engine<float, Cells::relu>, "5e8837b0284f9b58",
     "b4967d4fa9175d10"},
    {"float64 engine relu", hash_of_engine<double, Cells::relu>, "ce43b56e522aa83d",
     "360565d93f15d01e"},
    {"float32 engine lstm", hash_of_engine<float, Cells::lstm>, "e5ec29a36b819e4d",
     "97f578ba8e190d16"},
    {"float64 engine lstm", hash_of_engine<double, Cells::lstm>, "22223cc3a6c735dd",
     "036dae32e18053e0"},
    {"float32 engine gru", hash_of_engine<float, Cells::gru>, "f60841c04c601152",
     "6fdacfb40de1802e"},
    {"float64 engine gru", hash_of_engine<double, Cells::gru>, "018d5ecbbb5be736",
     "adb46d8b227fcc03"},
};

void results_have_their_hashes() {
  const bool fused = std::string(kernel_table().name) != "generic";
  for (const Row& row : kRows) {
    const Scope scope([&](std::ostream& out) { out << row.name; });
    const std::string expected = fused ? row.with_fma : row.generic;
    CHECK_EQUAL(row.hash(), expected);
  }
}

}  // namespace
}  // namespace bptt::test

int main(int argc, char** argv) {
  return bptt::test::run_tests_on_isa(argc, argv,
                                      {{"results have the hashes that they have everywhere",
                                        bptt::test::results_have_their_hashes}});
}
