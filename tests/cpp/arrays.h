// Arrays that notice what a kernel must not touch.
//
// Memory begins and ends with pages that fault; what lies between them and the array is filled with
// a canary, as is the array itself before it is given values. The canary is a NaN: a value read
// from outside spoils the result.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>

#include "contract/kernels.h"

namespace bptt::test {

// Equal bits; any NaN equals any other, since their signs and payloads are no one's promise.
template <class T>
bool same_bits(T a, T b) {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  return std::bit_cast<Bits>(a) == std::bit_cast<Bits>(b) || (a != a && b != b);
}

template <class T>
bool is_canary(const T& value) {
  unsigned char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  for (unsigned char byte : bytes) {
    if (byte != 0xff) return false;
  }
  return true;
}

// `count` elements that end `gap` elements before a page which faults.
template <class T>
class GuardedArray {
 public:
  explicit GuardedArray(Index count, Index gap = 0) : count_(count) {
    const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t used = static_cast<std::size_t>(count + gap) * sizeof(T);
    pages_bytes_ = (used + kCanaryBytes + page - 1) / page * page;
    bytes_ = pages_bytes_ + 2 * page;
    void* all = mmap(nullptr, bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) throw std::bad_alloc();
    all_ = static_cast<unsigned char*>(all);
    pages_ = all_ + page;
    if (mprotect(pages_, pages_bytes_, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
    std::memset(pages_, 0xff, pages_bytes_);
    data_ = reinterpret_cast<T*>(pages_ + pages_bytes_ - used);
  }
  ~GuardedArray() {
    if (all_) munmap(all_, bytes_);
  }
  GuardedArray(GuardedArray&& other) noexcept
      : count_(other.count_),
        bytes_(other.bytes_),
        pages_bytes_(other.pages_bytes_),
        all_(std::exchange(other.all_, nullptr)),
        pages_(other.pages_),
        data_(other.data_) {}
  GuardedArray& operator=(GuardedArray&&) = delete;

  T* get() { return data_; }
  const T* get() const { return data_; }
  T* begin() { return data_; }
  T* end() { return data_ + count_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + count_; }
  Index size() const { return count_; }
  T& operator[](Index i) { return data_[i]; }
  const T& operator[](Index i) const { return data_[i]; }

  // Whether nothing around the array was written.
  bool intact() const {
    const auto* first = reinterpret_cast<const unsigned char*>(data_);
    const auto* last = reinterpret_cast<const unsigned char*>(data_ + count_);
    return all_canary(pages_, first) && all_canary(last, pages_ + pages_bytes_);
  }

  bool same_bits_as(const GuardedArray& other) const {
    for (Index i = 0; i < count_; ++i) {
      if (!same_bits(data_[i], other.data_[i])) return false;
    }
    return count_ == other.count_;
  }

 private:
  static constexpr std::size_t kCanaryBytes = 256;

  static bool all_canary(const unsigned char* first, const unsigned char* last) {
    const auto count = static_cast<std::size_t>(last - first);
    return count == 0 || (*first == 0xff && std::memcmp(first, first + 1, count - 1) == 0);
  }

  Index count_;
  std::size_t bytes_, pages_bytes_;
  unsigned char *all_, *pages_;
  T* data_;
};

// How a matrix lies in memory (contract/kernels.h); `one_row` repeats its only row.
enum class Storage { row_major, padded_row_major, strips, one_row };
inline constexpr const char* kStorageNames[] = {"row_major", "padded_row_major", "strips",
                                                "one_row"};

template <class T>
class Matrix {
 public:
  Matrix(Index rows, Index columns, Index lanes, Storage storage, Index gap = 0)
      : rows_(rows),
        columns_(columns),
        lanes_(lanes),
        in_strips_(storage == Storage::strips),
        row_stride_(storage == Storage::one_row            ? 0
                    : storage == Storage::strips           ? lanes
                    : storage == Storage::padded_row_major ? columns + 5
                                                           : columns),
        strip_stride_(in_strips_ ? rows * lanes : lanes),
        memory_(memory_count(), gap) {}

  Index rows() const { return rows_; }
  Index columns() const { return columns_; }
  Strips<T> view() { return {memory_.get(), strip_stride_, row_stride_}; }
  Strips<const T> view() const { return {memory_.get(), strip_stride_, row_stride_}; }
  T& operator()(Index row, Index column) { return memory_[index(row, column)]; }
  const T& operator()(Index row, Index column) const { return memory_[index(row, column)]; }

  // f(row, column, value) for every element.
  template <class F>
  void for_each(F&& f) {
    for (Index r = 0; r < rows_; ++r) {
      for (Index c = 0; c < columns_; ++c) f(r, c, (*this)(r, c));
    }
  }

  // Whether nothing was written but the elements: neither around the matrix nor in its padding.
  bool intact() const {
    for (Index i = 0; i < memory_.size(); ++i) {
      if (!holds_element(i) && !is_canary(memory_[i])) return false;
    }
    return memory_.intact();
  }

 private:
  Index memory_count() const {
    if (rows_ == 0 || columns_ == 0) return 0;
    if (in_strips_) return (columns_ + lanes_ - 1) / lanes_ * strip_stride_;
    return (rows_ - 1) * row_stride_ + columns_;
  }
  Index index(Index row, Index column) const {
    return column / lanes_ * strip_stride_ + row * row_stride_ + column % lanes_;
  }
  bool holds_element(Index i) const {
    if (in_strips_) return i / strip_stride_ * lanes_ + i % lanes_ < columns_;
    return row_stride_ == 0 || i % row_stride_ < columns_;
  }

  Index rows_, columns_, lanes_;
  bool in_strips_;
  Index row_stride_, strip_stride_;
  GuardedArray<T> memory_;
};

}  // namespace bptt::test
