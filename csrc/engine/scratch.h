// Scratch memory of a call: aligned to cache lines, not initialised, kept for the next call.
//
// Fresh pages cost a fault each (about 0.25 us for 4 KiB, as much as 50 000 flops), so the thread
// that makes calls keeps its scratch. A `Frame` spans one call; `Buffer`s taken within it are valid
// until it ends. Frames nest: a signal handler that a call lets run may make calls of its own.
// Under a `Count` buffers are added up instead of taken. Those that a `Kept` makes are its own.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "contract/kernels.h"

namespace bptt {

class Scratch {
 public:
  static Scratch& of_this_thread();

  // Throws std::bad_alloc.
  void* take(std::size_t bytes);

  class Frame {
   public:
    Frame() { ++of_this_thread().depth_; }
    ~Frame() {
      if (--of_this_thread().depth_ == 0) of_this_thread().release();
    }
    Frame(const Frame&) = delete;
    Frame& operator=(const Frame&) = delete;
  };

  // While it lives, buffers of this thread are null, and what they would take is its `bytes`.
  class Count {
   public:
    Count() : outer_(of_this_thread().count_) { of_this_thread().count_ = &bytes_; }
    ~Count() { of_this_thread().count_ = outer_; }
    Count(const Count&) = delete;
    Count& operator=(const Count&) = delete;

    std::size_t bytes() const { return bytes_; }

   private:
    std::size_t bytes_ = 0;
    std::size_t* outer_;
  };

 private:
  struct Free {
    void operator()(std::byte* p) const;
  };
  using Chunk = std::unique_ptr<std::byte, Free>;

 public:
  // Memory of what outlives a call.
  class Kept {
   public:
    // What make() returns; the buffers that it takes are valid as long as this is.
    template <class F>
    auto make(F&& f) {
      const Taking taking(this);
      return f();
    }

    std::size_t bytes() const { return bytes_; }

   private:
    friend class Scratch;

    // While it lives, this thread's buffers are those of `kept`.
    class Taking {
     public:
      explicit Taking(Kept* kept) : outer_(of_this_thread().kept_) {
        of_this_thread().kept_ = kept;
      }
      ~Taking() { of_this_thread().kept_ = outer_; }
      Taking(const Taking&) = delete;
      Taking& operator=(const Taking&) = delete;

     private:
      Kept* outer_;
    };

    void* take(std::size_t bytes);

    std::vector<Chunk> chunks_;  // one for each buffer
    std::size_t bytes_ = 0;
  };

 private:
  static Chunk try_chunk(std::size_t bytes);
  static Chunk chunk_of(std::size_t bytes);
  void release();

  std::vector<Chunk> chunks_;  // the last one is being filled
  std::size_t capacity_ = 0;   // of the last chunk
  std::size_t used_ = 0;       // of the last chunk
  std::size_t total_ = 0;      // taken in the outermost frame
  int depth_ = 0;              // frames that are open
  std::size_t* count_ = nullptr;
  Kept* kept_ = nullptr;
};

// `count` values in the scratch of the current frame, or in what a `Kept` keeps.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(Index count)
      : data_(static_cast<T*>(
            Scratch::of_this_thread().take(static_cast<std::size_t>(count) * sizeof(T)))) {}

  T* get() { return data_; }
  const T* get() const { return data_; }

 private:
  T* data_ = nullptr;
};

}  // namespace bptt
