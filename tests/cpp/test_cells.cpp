// Elman cells, the part that acts on each unit by itself: S = f(a) and da = f'(a) dS, in every
// storage, for any range of units; NaN stays NaN.
#include <cmath>
#include <limits>

#include "arrays.h"
#include "isa.h"
#include "random.h"

namespace bptt::test {
namespace {

template <class T>
T tanh_of(T a) {
  T y;
  kernels<T>().tanh(&a, &y, 1);
  return y;
}

// What a cell does to one value, in plain words.
template <class T>
struct Definition {
  CellId id;
  T (*activate)(T a);
  T (*chain)(T ds, T s);
};

template <class T>
T tanh_chain(T ds, T s) {
  return ds * multiply_add_of_isa<T>()(-s, s, T(1));
}

template <class T>
const Definition<T> kCellsByDefinition[] = {
    {Cells::linear, [](T a) { return a; }, [](T ds, T) { return ds; }},
    {Cells::tanh, tanh_of<T>, tanh_chain<T>},
    {Cells::relu, [](T a) { return a < 0 ? T(0) : a; },
     [](T ds, T s) { return s <= 0 ? T(0) : ds; }},
};

struct Case {
  Index rows, units;
  Index begin, end;  // the units that the call takes
  Storage values, y;
  Index gap;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << "rows " << c.rows << ", units [" << c.begin << ", " << c.end << ") of " << c.units
             << ", values " << kStorageNames[static_cast<int>(c.values)] << ", y "
             << kStorageNames[static_cast<int>(c.y)] << ", gap " << c.gap;
}

template <class T>
Matrix<T> random_matrix(const Case& c, Storage storage, Random& random) {
  Matrix<T> matrix(c.rows, c.units, kernels<T>().lanes, storage, c.gap);
  matrix.for_each([&](Index, Index, T& value) { value = random.special<T>(); });
  return matrix;
}

// Runs a kernel over `values` and checks that each value in range became expected(row, unit, it).
template <class T, class Expected>
void check_kernel(void (*kernel)(const Pointwise<T>&), const Case& c, const Matrix<T>& y,
                  Matrix<T>& values, Expected expected) {
  Matrix<T> before(c.rows, c.units, kernels<T>().lanes, Storage::row_major);
  values.for_each([&](Index row, Index unit, T& value) { before(row, unit) = value; });
  kernel({c.rows, c.begin, c.end, y.view(), values.view()});
  values.for_each([&](Index row, Index unit, T& value) {
    T wanted = before(row, unit);
    if (unit >= c.begin && unit < c.end) wanted = expected(row, unit, wanted);
    if (!same_bits(value, wanted)) CHECK_EQUAL(value, wanted);
  });
  CHECK(values.intact());
}

template <class T>
void check_cell(const Definition<T>& cell, const Case& c, Random& random) {
  const Scope scope([&](std::ostream& out) { out << name_of(cell.id) << ", " << c; });
  const Cell<T>& cell_kernels = kernels<T>().cells[static_cast<std::size_t>(cell.id)];
  const Matrix<T> y = random_matrix<T>(c, c.y, random);
  Matrix<T> values = random_matrix<T>(c, c.values, random);
  check_kernel<T>(cell_kernels.backward, c, y, values,
                  [&](Index row, Index unit, T ds) { return cell.chain(ds, y(row, unit)); });
  Matrix<T> a = random_matrix<T>(c, c.values, random);
  check_kernel<T>(cell_kernels.forward, c, y, a,
                  [&](Index, Index, T value) { return cell.activate(value); });
}

template <class T>
void every_count_of_units() {
  constexpr Storage kDense[] = {Storage::row_major, Storage::padded_row_major, Storage::strips};
  Random random(11);
  const Index lanes = kernels<T>().lanes;
  for (const Definition<T>& cell : kCellsByDefinition<T>) {
    for (Index units = 0; units <= 2 * lanes + 1; ++units) {
      for (Index rows : {0, 1, 2, 5}) {
        for (Index begin = 0; begin <= units; begin += lanes) {
          const Index middle = std::min(units, begin + lanes);
          for (Index end : {middle, units}) {
            check_cell(cell,
                       {rows, units, begin, end, random.any_of(kDense), random.any_of(kDense),
                        random.below(lanes + 1)},
                       random);
          }
        }
      }
    }
  }
}

template <class T>
void tanh_agrees_with_the_standard_library() {
  Random random(12);
  Matrix<T> values(1, 1000, kernels<T>().lanes, Storage::row_major);
  values.for_each([&](Index, Index, T& value) { value = 4 * random.uniform<T>(); });
  std::vector<T> a(values.view().data, values.view().data + 1000);
  kernels<T>().cells[static_cast<std::size_t>(Cells::tanh)].forward(
      {1, 0, 1000, {}, values.view()});
  for (Index i = 0; i < 1000; ++i) {
    const T exact = std::tanh(a[static_cast<std::size_t>(i)]);
    CHECK_AT_MOST(std::fabs(values(0, i) - exact),
                  4 * std::numeric_limits<T>::epsilon() * std::fabs(exact));
  }
}

}  // namespace
}  // namespace bptt::test

int main(int argc, char** argv) {
  using namespace bptt::test;
  return run_tests_on_isa(
      argc, argv,
      {{"float32: every count of units", every_count_of_units<float>},
       {"float64: every count of units", every_count_of_units<double>},
       {"float32: tanh agrees with std::tanh", tanh_agrees_with_the_standard_library<float>},
       {"float64: tanh agrees with std::tanh", tanh_agrees_with_the_standard_library<double>}});
}
