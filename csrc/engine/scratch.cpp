#include "engine/scratch.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>

namespace bptt {
namespace {

constexpr std::size_t kAlignment = 64;
// Weights from beyond the second-level cache come a fifth faster from pages of this size.
constexpr std::size_t kHugePage = std::size_t{2} << 20;
// What a thread keeps between calls, at most.
constexpr std::size_t kKept = std::size_t{64} << 20;

#if defined(BPTT_SEPARATE_BUFFERS)
constexpr bool kOneChunkEach = true;  // so that AddressSanitizer sees the end of each buffer
#else
constexpr bool kOneChunkEach = false;
#endif

}  // namespace

Scratch& Scratch::of_this_thread() {
  static thread_local Scratch scratch;
  return scratch;
}

void Scratch::Free::operator()(std::byte* p) const { std::free(p); }

// Null if there is no memory.
Scratch::Chunk Scratch::try_chunk(std::size_t bytes) {
  const bool huge = bytes >= kHugePage;
  void* memory = nullptr;
  if (posix_memalign(&memory, huge ? kHugePage : kAlignment, bytes) != 0) return {};
#if defined(MADV_HUGEPAGE)
  if (huge) madvise(memory, bytes, MADV_HUGEPAGE);  // or nothing, where refused
#endif
  return Chunk(static_cast<std::byte*>(memory));
}

Scratch::Chunk Scratch::chunk_of(std::size_t bytes) {
  Chunk chunk = try_chunk(bytes);
  if (!chunk) throw std::bad_alloc();
  return chunk;
}

void* Scratch::Kept::take(std::size_t bytes) {
  chunks_.push_back(chunk_of(bytes));
  bytes_ += bytes;
  return chunks_.back().get();
}

void* Scratch::take(std::size_t bytes) {
  bytes = std::max(bytes + kAlignment - 1, kAlignment) / kAlignment * kAlignment;
  if (count_) {
    *count_ += bytes;
    return nullptr;
  }
  if (kept_) return kept_->take(bytes);
  if (kOneChunkEach || bytes > capacity_ - used_) {
    // Room for what this frame has taken so far, so that the next one needs few chunks.
    const std::size_t size = kOneChunkEach ? bytes : std::max(bytes, std::min(total_, kKept));
    chunks_.push_back(chunk_of(size));
    capacity_ = size;
    used_ = 0;
  }
  std::byte* const start = chunks_.back().get() + used_;
  used_ += bytes;
  total_ += bytes;
  return start;
}

// Ends the outermost frame: keeps one chunk that holds all of it, unless that is too much to keep.
void Scratch::release() {
  const bool keep = !kOneChunkEach && total_ <= kKept;
  if (!keep || chunks_.size() > 1) {
    chunks_.clear();
    capacity_ = 0;
  }
  if (keep && chunks_.empty() && total_ > 0) {
    if (Chunk chunk = try_chunk(total_)) {
      chunks_.push_back(std::move(chunk));
      capacity_ = total_;
    }
  }
  used_ = 0;
  total_ = 0;
}

}  // namespace bptt
