// Packed panels, made one element at a time (contract/kernels.h: `Pack`).
#pragma once

#include <algorithm>

#include "arrays.h"

namespace bptt::test {

inline Index round_up_to(Index n, Index grain) { return (n + grain - 1) / grain * grain; }

// Where panels of `width` columns and `panel_rows` rows keep element (row, column).
struct PanelLayout {
  Index columns, panel_rows, width, lanes;

  Index size() const { return round_up_to(columns, lanes) * panel_rows; }
  Index index(Index row, Index column) const {
    const Index n0 = column / width * width;
    return n0 * panel_rows + row * width_of_panel(n0) + (column - n0);
  }
  Index width_of_panel(Index n0) const { return std::min(width, round_up_to(columns - n0, lanes)); }
};

template <class T>
GuardedArray<T> packed(const Matrix<T>& matrix, const PanelLayout& layout, Index row_offset) {
  GuardedArray<T> panels(layout.size());
  for (Index r = 0; r < matrix.rows(); ++r) {
    for (Index c = 0; c < round_up_to(matrix.columns(), layout.lanes); ++c) {
      panels[layout.index(row_offset + r, c)] = c < matrix.columns() ? matrix(r, c) : T(0);
    }
  }
  return panels;
}

}  // namespace bptt::test
