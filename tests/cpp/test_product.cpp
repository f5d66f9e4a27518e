// product: every element has the bits of a scalar loop over k upwards, for every count of rows,
// columns and k, every storage and every cut of the columns.
#include <algorithm>
#include <vector>

#include "arrays.h"
#include "covering.h"
#include "isa.h"
#include "panels.h"
#include "random.h"

namespace bptt::test {
namespace {

enum class Init { zero, bias, matrix };

struct Case {
  Index rows, columns;
  Index k[2];
  Storage a[2];
  Init init;
  Storage init_storage, out;
  Index cut;  // the columns [cut, columns) are computed by another call
  Index gap;
  bool special_values;
  bool far, downward;
  bool placed;  // rows of `out` are in another order, and it is added to
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  const auto name = [](Storage storage) { return kStorageNames[static_cast<int>(storage)]; };
  return out << "rows " << c.rows << ", columns " << c.columns << ", k " << c.k[0] << " + "
             << c.k[1] << ", a " << name(c.a[0]) << ' ' << name(c.a[1]) << ", init "
             << static_cast<int>(c.init) << ' ' << name(c.init_storage) << ", out " << name(c.out)
             << ", cut " << c.cut << ", gap " << c.gap << ", special " << c.special_values
             << ", far " << c.far << ", downward " << c.downward << ", placed " << c.placed;
}

template <class T>
T random_value(const Case& c, Random& random) {
  return c.special_values ? random.special<T>() : random.spread<T>();
}

template <class T>
Matrix<T> random_matrix(const Case& c, Index rows, Index columns, Storage storage, Random& random) {
  Matrix<T> matrix(rows, columns, kernels<T>().lanes, storage, c.gap);
  matrix.for_each([&](Index, Index, T& value) { value = random_value<T>(c, random); });
  return matrix;
}

// A left factor and a right one, as it is and packed.
template <class T>
struct Factors {
  Factors(const Case& c, int segment, Random& random)
      : a(random_matrix<T>(c, c.rows, c.k[segment], c.a[segment], random)),
        w(random_matrix<T>(c, c.k[segment], c.columns, Storage::row_major, random)),
        panels(packed(w, layout(c, segment), 0)) {}

  static PanelLayout layout(const Case& c, int segment) {
    return {c.columns, c.k[segment], kernels<T>().product_width, kernels<T>().lanes};
  }

  typename Product<T>::Segment segment() const {
    const Matrix<T>& left = a;
    return {left.view(), w.rows(), panels.get()};
  }

  T add_to(T sum, Index row, Index column, MultiplyAdd<T> multiply_add) const {
    for (Index k = 0; k < w.rows(); ++k) sum = multiply_add(a(row, k), w(k, column), sum);
    return sum;
  }

  Matrix<T> a, w;
  GuardedArray<T> panels;
};

std::vector<Index> random_order(Index count, Random& random) {
  std::vector<Index> order(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < order.size(); ++i) {
    const auto other = static_cast<std::size_t>(random.below(static_cast<Index>(i) + 1));
    order[i] = order[other];
    order[other] = static_cast<Index>(i);
  }
  return order;
}

template <class T>
void check_product(const Case& c, Random& random) {
  const Scope scope([&](std::ostream& out) { out << c; });
  const Factors<T> first(c, 0, random), second(c, 1, random);
  const Storage init_storage = c.init == Init::bias ? Storage::one_row : c.init_storage;
  const Matrix<T> init = random_matrix<T>(c, c.rows, c.columns, init_storage, random);
  Matrix<T> out(c.rows, c.columns, kernels<T>().lanes, c.out, c.gap);
  const Matrix<T> added = random_matrix<T>(c, c.rows, c.columns, Storage::row_major, random);
  const std::vector<Index> places = random_order(c.rows, random);

  const auto product = [&](Index begin, Index end) {
    kernels<T>().product({c.rows,
                          c.columns,
                          begin,
                          end,
                          c.init == Init::zero ? Strips<const T>{} : init.view(),
                          {first.segment(), second.segment()},
                          out.view(),
                          c.placed ? added.view() : Strips<const T>{},
                          c.far,
                          c.downward,
                          c.placed ? places.data() : nullptr});
  };
  product(c.cut, c.columns);
  out.for_each([&](Index, Index column, T& value) {
    if (column < c.cut) CHECK(is_canary(value));
  });
  product(0, c.cut);

  const MultiplyAdd<T> multiply_add = multiply_add_of_isa<T>();
  out.for_each([&](Index place, Index column, T& value) {
    const auto at = std::find(places.begin(), places.end(), place) - places.begin();
    const Index row = c.placed ? at : place;
    T sum = c.init == Init::zero ? T(0) : init(row, column);
    sum = first.add_to(sum, row, column, multiply_add);
    sum = second.add_to(sum, row, column, multiply_add);
    if (c.placed) sum += added(place, column);
    if (!same_bits(value, sum)) CHECK_EQUAL(value, sum);
  });
  CHECK(out.intact());
}

// Whether a pair of counts is tested; with few cases each count meets every third of the other's.
bool takes(Index one, Index other) { return !few_cases() || (one + other) % 3 == 0; }

// The storages, cuts and kinds of init take turns.
template <class T>
void check_product(Index rows, Index columns, Index k, Random& random) {
  constexpr Storage kDense[] = {Storage::row_major, Storage::padded_row_major, Storage::strips};
  const Index second_k = random.below(2) ? random.below(2 * kernels<T>().lanes + 2) : 0;
  check_product<T>({rows,
                    columns,
                    {k, second_k},
                    {random.any_of(kDense), random.any_of(kDense)},
                    static_cast<Init>(random.below(3)),
                    random.any_of(kDense),
                    random.any_of(kDense),
                    std::min(columns, random.below(3) * kernels<T>().product_width),
                    random.below(kernels<T>().lanes + 1),
                    random.below(8) == 0,
                    random.below(2) == 0,
                    random.below(2) == 0,
                    random.below(3) == 0},
                   random);
}

constexpr Index kMaxRows = 2 * 14 + 1;  // two of the highest tiles and one row

template <class T>
void every_count_of_rows_and_columns() {
  Random random(2);
  for (Index rows = 0; rows <= kMaxRows; ++rows) {
    for (Index columns = 0; columns <= 2 * kernels<T>().product_width + 1; ++columns) {
      check_product<T>(rows, columns, random.below(2 * kernels<T>().lanes + 2), random);
    }
  }
}

template <class T>
void every_count_of_rows_and_k() {
  Random random(3);
  for (Index rows = 0; rows <= kMaxRows; ++rows) {
    for (Index k = 0; k <= 2 * kernels<T>().lanes + 1; ++k) {
      if (takes(rows, k))
        check_product<T>(rows, random.below(2 * kernels<T>().product_width + 2), k, random);
    }
  }
}

template <class T>
void every_count_of_columns_and_k() {
  Random random(4);
  for (Index columns = 0; columns <= 2 * kernels<T>().product_width + 1; ++columns) {
    for (Index k = 0; k <= 2 * kernels<T>().lanes + 1; ++k) {
      if (takes(columns, k)) check_product<T>(random.below(kMaxRows + 1), columns, k, random);
    }
  }
}

// Long sums take the same order.
template <class T>
void long_sums() {
  Random random(5);
  for (Index k : {100, 257, 1000, 4097}) {
    for (Index rows : {1, 5, 16}) {
      check_product<T>(rows, 33, k, random);
      check_product<T>(rows, 3 * kernels<T>().product_width + 1, k, random);
    }
  }
}

// Of weights from afar large sums are added up one after the other, in the output, unless what is
// added in the end is there, or the output has its rows elsewhere. The bits are those of all at
// once.
template <class T>
void large_sums_from_afar(bool placed) {
  Random random(6);
  const Kernels<T>& k = kernels<T>();
  const Index rows = 8, columns = 2 * k.product_width + k.lanes;
  const Case c{rows,
               columns,
               {4000, 4200},
               {Storage::strips, Storage::row_major},
               Init::zero,
               Storage::row_major,
               Storage::row_major,
               0,
               0,
               false,
               false,
               false};
  const Factors<T> first(c, 0, random), second(c, 1, random);
  const Matrix<T> terms = random_matrix<T>(c, rows, columns, Storage::row_major, random);
  const std::vector<Index> places = random_order(rows, random);
  for (const bool initial : {false, true}) {
    for (const bool in_place : {false, true}) {
      Matrix<T> outs[2] = {Matrix<T>(rows, columns, k.lanes, Storage::row_major, 0),
                           Matrix<T>(rows, columns, k.lanes, Storage::row_major, 0)};
      for (const bool far : {false, true}) {
        Matrix<T>& out = outs[far];
        out.for_each([&](Index row, Index column, T& value) { value = terms(row, column); });
        Product<T> product{rows, columns, 0, columns, {}, {}, out.view()};
        product.segments[1] = first.segment();
        product.segments[3] = second.segment();
        if (initial) product.init = terms.view();
        product.added = in_place ? std::as_const(out).view() : terms.view();
        product.far = far;
        if (placed) product.out_rows = places.data();
        k.product(product);
      }
      outs[0].for_each([&](Index row, Index column, T& value) {
        if (!same_bits(value, outs[1](row, column))) CHECK_EQUAL(value, outs[1](row, column));
      });
    }
  }
}

}  // namespace
}  // namespace bptt::test

int main(int argc, char** argv) {
  using namespace bptt::test;
  return run_tests_on_isa(
      argc, argv,
      {{"float32: every count of rows and columns", every_count_of_rows_and_columns<float>},
       {"float64: every count of rows and columns", every_count_of_rows_and_columns<double>},
       {"float32: every count of rows and k", every_count_of_rows_and_k<float>},
       {"float64: every count of rows and k", every_count_of_rows_and_k<double>},
       {"float32: large sums from afar", [] { large_sums_from_afar<float>(false); }},
       {"float32: large sums from afar to other places", [] { large_sums_from_afar<float>(true); }},
       {"float64: large sums from afar", [] { large_sums_from_afar<double>(false); }},
       {"float64: large sums from afar to other places",
        [] { large_sums_from_afar<double>(true); }},
       {"float32: every count of columns and k", every_count_of_columns_and_k<float>},
       {"float64: every count of columns and k", every_count_of_columns_and_k<double>},
       {"float32: long sums", long_sums<float>},
       {"float64: long sums", long_sums<double>}});
}
