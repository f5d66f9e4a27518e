// pack: panels hold every element where the contract says, zeros behind the last column, and no
// other memory changes.
#include "arrays.h"
#include "isa.h"
#include "panels.h"
#include "random.h"

namespace bptt::test {
namespace {

struct Case {
  Index columns, rows, width;
  Index stride_n, stride_k;
  Index rows_before, rows_behind;  // of the panels, that stay as they are
  Index cut;                       // the rows [cut, rows) are packed by another call
  Index gap;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << "columns " << c.columns << ", rows " << c.rows << ", width " << c.width
             << ", strides " << c.stride_n << ' ' << c.stride_k << ", rows_before " << c.rows_before
             << ", rows_behind " << c.rows_behind << ", cut " << c.cut << ", gap " << c.gap;
}

template <class T>
GuardedArray<T> random_source(const Case& c, Random& random) {
  const bool empty = c.columns == 0 || c.rows == 0;
  GuardedArray<T> source(empty ? 0 : (c.columns - 1) * c.stride_n + (c.rows - 1) * c.stride_k + 1,
                         c.gap);
  for (T& value : source) value = random.spread<T>();
  return source;
}

template <class T>
void check_pack(const Case& c, Random& random) {
  const Scope scope([&](std::ostream& out) { out << c; });
  const Index lanes = kernels<T>().lanes;
  const PanelLayout layout{c.columns, c.rows_before + c.rows + c.rows_behind, c.width, lanes};
  const GuardedArray<T> source = random_source<T>(c, random);
  GuardedArray<T> panels(layout.size(), c.gap);

  const auto pack = [&](Index begin, Index end) {
    kernels<T>().pack({source.get() + begin * c.stride_k, c.stride_n, c.stride_k, c.columns,
                       end - begin, c.width, panels.get(), layout.panel_rows,
                       c.rows_before + begin});
  };
  pack(c.cut, c.rows);
  for (Index n = 0; n < c.columns; ++n) {
    for (Index k = 0; k < c.cut; ++k) CHECK(is_canary(panels[layout.index(c.rows_before + k, n)]));
  }
  pack(0, c.cut);

  for (Index n = 0; n < round_up_to(c.columns, lanes); ++n) {
    for (Index row = 0; row < layout.panel_rows; ++row) {
      const T got = panels[layout.index(row, n)];
      const Index k = row - c.rows_before;
      if (k < 0 || k >= c.rows) {
        CHECK(is_canary(got));
      } else {
        CHECK(same_bits(got, n < c.columns ? source[n * c.stride_n + k * c.stride_k] : T(0)));
      }
    }
  }
  CHECK(panels.intact());
}

template <class T>
void panels_hold_the_matrix_and_zeros() {
  const Kernels<T>& k = kernels<T>();
  Random random(1);
  for (Index width : {k.product_width, k.outer_width, k.lanes}) {
    for (Index columns = 0; columns <= 2 * width + 1; ++columns) {
      for (Index rows : {0, 1, 2, 7, 17, 33}) {
        const Index extra = random.below(3);
        const Index strides[][2] = {{1, columns + extra}, {rows + extra, 1}};
        for (const auto& [stride_n, stride_k] : strides) {
          const Index cut = random.below(rows + 1);
          check_pack<T>({columns, rows, width, stride_n, stride_k, random.below(3), random.below(3),
                         cut, random.below(k.lanes + 1)},
                        random);
        }
      }
    }
  }
}

}  // namespace
}  // namespace bptt::test

int main(int argc, char** argv) {
  using namespace bptt::test;
  return run_tests_on_isa(
      argc, argv,
      {{"float32: panels hold the matrix and zeros", panels_hold_the_matrix_and_zeros<float>},
       {"float64: panels hold the matrix and zeros", panels_hold_the_matrix_and_zeros<double>}});
}
