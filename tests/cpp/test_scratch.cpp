// Scratch: buffers of a frame are aligned and apart, whatever earlier frames took; each thread has
// its own; what cannot be had is std::bad_alloc.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include "check.h"
#include "engine/scratch.h"
#include "random.h"

namespace bptt::test {
namespace {

// Takes buffers of random sizes, fills each with its number, and looks whether all still hold it.
void take_and_check(Random& random, Index largest) {
  const Scratch::Frame frame;
  std::vector<std::pair<Buffer<int>, Index>> buffers;
  for (int number = 0; number < 20; ++number) {
    const Index count = random.below(largest);
    buffers.emplace_back(Buffer<int>(count), count);
    std::fill_n(buffers.back().first.get(), count, number);
    CHECK_EQUAL(reinterpret_cast<std::uintptr_t>(buffers.back().first.get()) % 64, 0u);
  }
  for (int number = 0; number < 20; ++number) {
    const auto& [buffer, count] = buffers[static_cast<std::size_t>(number)];
    CHECK_EQUAL(std::count(buffer.get(), buffer.get() + count, number), count);
  }
}

void buffers_are_aligned_and_apart() {
  Random random(15);
  for (Index largest : {1, 10, 1000, 100'000, 10, 5'000'000, 1000}) {
    for (int frame = 0; frame < 3; ++frame) take_and_check(random, largest);
  }
}

void threads_have_their_own() {
  const Scratch::Frame frame;
  Buffer<int> mine(1000);
  std::fill_n(mine.get(), 1000, 7);
  std::thread([] {
    Random random(16);
    for (int other = 0; other < 10; ++other) take_and_check(random, 1000);
  }).join();
  CHECK_EQUAL(std::count(mine.get(), mine.get() + 1000, 7), 1000);
}

void counted_buffers_take_nothing() {
  const Scratch::Frame frame;
  Buffer<int> taken(10);
  {
    const Scratch::Count outer;
    CHECK(Buffer<int>(1000).get() == nullptr);
    CHECK_EQUAL(outer.bytes(), 4032u);  // whole cache lines
    const Scratch::Count inner;
    CHECK(Buffer<char>(Index{1} << 60).get() == nullptr);
    CHECK_EQUAL(inner.bytes(), std::size_t{1} << 60);
    CHECK_EQUAL(outer.bytes(), 4032u);
  }
  CHECK(Buffer<int>(10).get() != nullptr);
}

// Whatever frames take meanwhile, also on another thread, on which it may end, too.
void what_is_kept_outlives_frames() {
  auto kept = std::make_unique<Scratch::Kept>();
  Buffer<int> buffer;
  {
    const Scratch::Frame frame;
    buffer = kept->make([] { return Buffer<int>(1000); });
    CHECK_EQUAL(kept->bytes(), 4032u);
  }
  std::fill_n(buffer.get(), 1000, 7);
  Random random(18);
  take_and_check(random, 1000);
  std::thread([&] {
    take_and_check(random, 1000);
    CHECK_EQUAL(std::count(buffer.get(), buffer.get() + 1000, 7), 1000);
    kept.reset();
  }).join();
}

bool can_be_had(Index count) {
  const Scratch::Frame frame;
  try {
    const Buffer<float> buffer(count);
    return buffer.get() != nullptr;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

void too_much_is_bad_alloc_and_leaves_no_trace() {
  for (Index count : {Index{1} << 55, std::numeric_limits<Index>::max() / 4}) {
    CHECK(can_be_had(1000));
    CHECK(!can_be_had(count));
  }
  Random random(17);
  take_and_check(random, 1000);
}

}  // namespace
}  // namespace bptt::test

int main() {
  using namespace bptt::test;
  return run_tests({
      {"buffers are aligned and apart", buffers_are_aligned_and_apart},
      {"threads have their own", threads_have_their_own},
      {"counted buffers take nothing", counted_buffers_take_nothing},
      {"what is kept outlives frames", what_is_kept_outlives_frames},
      {"too much is bad_alloc and leaves no trace", too_much_is_bad_alloc_and_leaves_no_trace},
  });
}
