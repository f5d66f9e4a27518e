// The rows of a block of time in an array of the caller's: as they lie or, where `Places` says that
// they lie in another order, copied while the block goes through the cache.
#pragma once

#include <algorithm>
#include <type_traits>

#include "engine/block.h"
#include "engine/scratch.h"

namespace bptt {

// A row that is copied or written soon: they lie in no order that the CPU could guess.
inline constexpr Index kRowsAhead = 4;
template <class T>
void fetch(T* row, Index columns) {
  constexpr Index kLine = 64 / static_cast<Index>(sizeof(T));
  for (Index i = 0; i < columns; i += kLine) __builtin_prefetch(row + i, !std::is_const_v<T>);
}

// Sets this member's share of the rows that no step has to zero.
template <class T>
void clear_padding(const Places& places, T* array, Index columns, Member member) {
  const Range mine = member.share(places.paddings, 1);
  for (Index i = mine.begin; i < mine.end; ++i) {
    if (i + kRowsAhead < mine.end) fetch(array + places.padding[i + kRowsAhead] * columns, columns);
    std::fill_n(array + places.padding[i] * columns, columns, T(0));
  }
}

template <class T>
class BlockRows {
 public:
  // How often a row is read: rows that are evenly spaced may be a power of two apart, and then fall
  // on few sets of a cache; if they are hardly read again, they need not be copied.
  enum class Read { once, often };

  // Of a block of at most so many rows, or of two that follow each other. The array may be null,
  // and no rows are asked for.
  BlockRows(const Shape& shape, const T* array, Index columns, Index block_rows, Read read,
            Index blocks = 1)
      : shape_(shape),
        array_(array),
        columns_(columns),
        block_rows_(block_rows),
        blocks_(blocks),
        copies_(array && shape.places.moved() &&
                (read == Read::often || shape.places.spacing == 0)) {
    if (copies_) copied_ = Buffer<T>(blocks * block_rows * columns);
  }

  // Whether members have to copy a block before they read it.
  bool copies() const { return copies_; }
  // This member's share of a block; or of the rows of some of the batch.
  void copy(const Block& block, Member member) {
    if (copies_) copy_rows(block, member.share(block.rows(), kRowGrain));
  }
  void copy(const Block& block, Range batch) {
    if (!copies_) return;
    for (Index t = block.steps.begin; t < block.steps.end; ++t) {
      const Range rows = shape_.sequence.active(t, batch);
      const Index first = block.row_of(t) - block.batch.begin;
      copy_rows(block, {first + rows.begin, first + rows.end});
    }
  }

  // The rows of step t from row b of the batch on; `data` is null without an array. Of copies those
  // of a block follow each other.
  Strips<const T> rows(const Block& block, Index t, Index b, Index lanes) const {
    return {at(block, t, b), lanes, row_stride()};
  }
  const T* at(const Block& block, Index t, Index b) const {
    if (!array_) return nullptr;
    if (copies_) return copied(block) + row_of_copy(block, t, b) * columns_;
    return array_ + shape_.places.of(shape_.sequence.row(t) + b) * columns_;
  }
  // The copies of a block as an array, and a row of it.
  const T* copied(const Block& block) const {
    return copied_.get() + block.number % blocks_ * block_rows_ * columns_;
  }
  Index row_of_copy(const Block& block, Index t, Index b) const {
    return block.row_of(t) + b - block.batch.begin;
  }

 private:
  Index row_stride() const {
    return shape_.places.moved() && !copies_ ? shape_.places.spacing * columns_ : columns_;
  }
  void copy_rows(const Block& block, Range rows) {
    T* const out = copied_.get() + block.number % blocks_ * block_rows_ * columns_;
    for_each_run(block, shape_.sequence, rows, [&](Index row, Index array_row, Index count) {
      const Index* const places = shape_.places.rows + array_row;
      for (Index i = 0; i < count; ++i) {
        if (i + kRowsAhead < count) fetch(array_ + places[i + kRowsAhead] * columns_, columns_);
        std::copy_n(array_ + places[i] * columns_, columns_, out + (row + i) * columns_);
      }
    });
  }

  const Shape& shape_;
  const T* array_;
  Index columns_, block_rows_, blocks_;
  bool copies_;
  Buffer<T> copied_;
};

}  // namespace bptt
