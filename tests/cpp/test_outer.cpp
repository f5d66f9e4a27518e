// outer and column_sums: what they add to `out` has the bits of a scalar loop over the rows
// upwards (column_sums: over partial sums of them), and only the units that were asked for change.
#include <utility>
#include <vector>

#include "arrays.h"
#include "isa.h"
#include "panels.h"
#include "random.h"

namespace bptt::test {
namespace {

struct Case {
  Index rows, units, columns;
  Index rows_before, rows_behind;  // of `right`, that take no part
  Index cut;                       // the units [cut, units) are computed by another call
  Index gap;
  Storage out;
  bool far;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << "rows " << c.rows << ", units " << c.units << ", columns " << c.columns
             << ", rows_before " << c.rows_before << ", rows_behind " << c.rows_behind << ", cut "
             << c.cut << ", gap " << c.gap << ", out " << kStorageNames[static_cast<int>(c.out)]
             << ", far " << c.far;
}

template <class T>
Matrix<T> random_matrix(Index rows, Index columns, Storage storage, Index gap, Random& random) {
  Matrix<T> matrix(rows, columns, kernels<T>().lanes, storage, gap);
  matrix.for_each([&](Index, Index, T& value) { value = random.spread<T>(); });
  return matrix;
}

template <class T>
void check_outer(const Case& c, Random& random) {
  const Scope scope([&](std::ostream& out) { out << c; });
  const Kernels<T>& k = kernels<T>();
  const PanelLayout layout{c.columns, c.rows_before + c.rows + c.rows_behind, k.outer_width,
                           k.lanes};
  const Matrix<T> left = random_matrix<T>(c.rows, c.units, Storage::strips, c.gap, random);
  const Matrix<T> right = random_matrix<T>(c.rows, c.columns, Storage::row_major, 0, random);
  const GuardedArray<T> panels = packed(right, layout, c.rows_before);
  Matrix<T> out = random_matrix<T>(c.units, c.columns, c.out, c.gap, random);
  std::vector<T> before;
  out.for_each([&](Index, Index, T& value) { before.push_back(value); });

  const auto outer = [&](Index begin, Index end) {
    k.outer({{1, c.rows},
             left.view(),
             0,
             begin,
             end,
             {panels.get(), layout.panel_rows, 0},
             c.rows_before,
             0,
             c.columns,
             out.view().data,
             out.view().row_stride,
             c.far});
  };
  outer(c.cut, c.units);
  for (Index u = 0; u < c.cut; ++u) {
    for (Index j = 0; j < c.columns; ++j) {
      CHECK_EQUAL(out(u, j), before[static_cast<std::size_t>(u * c.columns + j)]);
    }
  }
  outer(0, c.cut);

  const MultiplyAdd<T> multiply_add = multiply_add_of_isa<T>();
  out.for_each([&](Index u, Index j, T& value) {
    T sum = 0;
    for (Index r = 0; r < c.rows; ++r) sum = multiply_add(left(r, u), right(r, j), sum);
    const T expected = before[static_cast<std::size_t>(u * c.columns + j)] + sum;
    if (!same_bits(value, expected)) CHECK_EQUAL(value, expected);
  });
  CHECK(out.intact());
}

template <class T>
void check_column_sums(const Case& c, Random& random) {
  const Scope scope([&](std::ostream& out) { out << c; });
  const Matrix<T> left = random_matrix<T>(c.rows, c.units, Storage::strips, c.gap, random);
  GuardedArray<T> out(c.units, c.gap);
  std::vector<T> before;
  for (T& value : out) before.push_back(value = random.spread<T>());

  kernels<T>().column_sums({{1, c.rows}, left.view(), 0, c.cut, c.units, {out.get(), nullptr}});
  for (Index u = 0; u < c.cut; ++u) CHECK_EQUAL(out[u], before[static_cast<std::size_t>(u)]);
  kernels<T>().column_sums({{1, c.rows}, left.view(), 0, 0, c.cut, {nullptr, out.get()}});

  for (Index u = 0; u < c.units; ++u) {
    T sum = 0;
    for (Index first = 0; first < c.rows; first += kRowsOfPartialSum) {
      T partial = 0;
      const Index last = std::min(first + kRowsOfPartialSum, c.rows);
      for (Index r = first; r < last; ++r) partial += left(r, u);
      sum += partial;
    }
    const T expected = before[static_cast<std::size_t>(u)] + sum;
    if (!same_bits(out[u], expected)) CHECK_EQUAL(out[u], expected);
  }
  CHECK(out.intact());
}

// Groups of rows, as some rows of a batch are at each step, give the bits of the same rows side by
// side, whether `right` is packed or read as it lies.
template <class T>
void check_groups(RowGroups sum, Index left_step, Index right_step, Index first, Random& random) {
  const Kernels<T>& k = kernels<T>();
  const Index units = k.lanes + 3, columns = 2 * k.outer_width + k.lanes;
  const Scope scope([&](std::ostream& out) {
    out << sum.groups << " x " << sum.rows << " rows, steps " << left_step << ' ' << right_step;
  });
  const Index left_rows = std::max<Index>(0, sum.groups - 1) * left_step + sum.rows;
  const Index right_rows = first + std::max<Index>(0, sum.groups - 1) * right_step + sum.rows;
  const Matrix<T> left = random_matrix<T>(left_rows, units, Storage::strips, 0, random);
  const Matrix<T> right = random_matrix<T>(right_rows, columns, Storage::row_major, 0, random);
  Matrix<T> dense_left(sum.groups * sum.rows, units, k.lanes, Storage::strips, 0);
  Matrix<T> dense_right(sum.groups * sum.rows, columns, k.lanes, Storage::row_major, 0);
  dense_left.for_each([&](Index r, Index u, T& value) {
    value = left(r / sum.rows * left_step + r % sum.rows, u);
  });
  dense_right.for_each([&](Index r, Index j, T& value) {
    value = right(first + r / sum.rows * right_step + r % sum.rows, j);
  });
  const auto panels_of = [&](const Matrix<T>& m, Index rows) {
    return packed(m, PanelLayout{columns, rows, k.outer_width, k.lanes}, 0);
  };
  const GuardedArray<T> panels = panels_of(right, right_rows);
  const GuardedArray<T> dense_panels = panels_of(dense_right, sum.groups * sum.rows);

  std::vector<T> expected(static_cast<std::size_t>(units * columns), T(1)), got = expected;
  const auto run = [&](RowGroups rows, const Matrix<T>& l, Index l_step, Columns<T> r,
                       Index r_first, Index r_step, std::vector<T>& out) {
    std::fill(out.begin(), out.end(), T(1));
    k.outer({rows, l.view(), l_step, 0, units, r, r_first, r_step, columns, out.data(), columns});
  };
  run({1, sum.groups * sum.rows}, dense_left, 0, {dense_panels.get(), sum.groups * sum.rows, 0}, 0,
      0, expected);
  run(sum, left, left_step, {panels.get(), right_rows, 0}, first, right_step, got);
  CHECK(expected == got);
  run(sum, left, left_step, {right.view().data, 1, columns}, first, right_step, got);
  CHECK(expected == got);

  std::vector<T> sums(static_cast<std::size_t>(units), T(0)), dense_sums = sums;
  k.column_sums({sum, left.view(), left_step, 0, units, {sums.data(), nullptr}});
  k.column_sums({{1, sum.groups * sum.rows},
                 std::as_const(dense_left).view(),
                 0,
                 0,
                 units,
                 {nullptr, dense_sums.data()}});
  CHECK(sums == dense_sums);
}

template <class T>
void groups_of_rows() {
  Random random(9);
  for (Index groups : {0, 1, 2, 5, 33}) {
    for (Index rows : {1, 2, 7, 16, 17}) {
      check_groups<T>({groups, rows}, rows, rows, 0, random);
      check_groups<T>({groups, rows}, rows, rows + 3, 2, random);
      check_groups<T>({groups, rows}, rows + random.below(4), rows + random.below(9), 1, random);
    }
  }
}

template <class T>
Case any_case(Index rows, Index units, Index columns, Random& random) {
  const Index lanes = kernels<T>().lanes;
  const Storage out = random.below(2) ? Storage::row_major : Storage::padded_row_major;
  const Index cut = std::min(units, random.below(3) * lanes);
  return {rows,
          units,
          columns,
          random.below(4),
          random.below(4),
          cut,
          random.below(lanes + 1),
          out,
          random.below(2) == 0};
}

template <class T>
void every_count_of_units_and_columns() {
  Random random(6);
  const Kernels<T>& k = kernels<T>();
  for (Index units = 0; units <= 2 * k.lanes + 1; ++units) {
    for (Index columns = 0; columns <= 2 * k.outer_width + 1; ++columns) {
      check_outer<T>(any_case<T>(random.below(20), units, columns, random), random);
    }
  }
}

// Strips go through it together, in several groups.
template <class T>
void large_right_operand() {
  Random random(10);
  constexpr Index kColumns = 1604 / static_cast<Index>(sizeof(T));
  for (const bool far : {false, true}) {
    Case c = any_case<T>(1001, 17 * kernels<T>().lanes + 3, kColumns, random);
    c.far = far;
    check_outer<T>(c, random);
  }
}

template <class T>
void every_count_of_rows() {
  Random random(7);
  const Kernels<T>& k = kernels<T>();
  for (Index rows = 0; rows <= 40; ++rows) {
    for (Index columns : {Index{1}, k.lanes + 1, k.outer_width}) {
      check_outer<T>(any_case<T>(rows, random.below(2 * k.lanes + 2), columns, random), random);
    }
  }
  for (Index rows : {256, 300, 1001}) {
    check_outer<T>(any_case<T>(rows, 2 * k.lanes + 1, 2 * k.outer_width + 1, random), random);
  }
}

template <class T>
void sums_of_every_count_of_units_and_rows() {
  Random random(8);
  for (Index units = 0; units <= 2 * kernels<T>().lanes + 1; ++units) {
    for (Index rows = 0; rows <= 40; ++rows) {
      check_column_sums<T>(any_case<T>(rows, units, 0, random), random);
    }
  }
}

}  // namespace
}  // namespace bptt::test

int main(int argc, char** argv) {
  using namespace bptt::test;
  return run_tests_on_isa(
      argc, argv,
      {{"float32: outer, units and columns", every_count_of_units_and_columns<float>},
       {"float64: outer, units and columns", every_count_of_units_and_columns<double>},
       {"float32: outer, rows", every_count_of_rows<float>},
       {"float64: outer, rows", every_count_of_rows<double>},
       {"float32: outer, a large right operand", large_right_operand<float>},
       {"float64: outer, a large right operand", large_right_operand<double>},
       {"float32: groups of rows", groups_of_rows<float>},
       {"float64: groups of rows", groups_of_rows<double>},
       {"float32: column sums", sums_of_every_count_of_units_and_rows<float>},
       {"float64: column sums", sums_of_every_count_of_units_and_rows<double>}});
}
