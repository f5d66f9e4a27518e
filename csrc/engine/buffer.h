// Scratch memory of a call: aligned to cache lines, not initialised.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>

#include "contract/kernels.h"

namespace bptt {

template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(Index count) {
    const std::size_t bytes = (static_cast<std::size_t>(count) * sizeof(T) + 63) / 64 * 64;
    data_.reset(static_cast<T*>(std::aligned_alloc(64, bytes ? bytes : 64)));
    if (!data_) throw std::bad_alloc();
  }

  T* get() { return data_.get(); }
  const T* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> data_;
};

}  // namespace bptt
