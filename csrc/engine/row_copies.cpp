#include "engine/row_copies.h"

#include <algorithm>
#include <cstring>

#include "engine/sequence.h"
#include "engine/team.h"

namespace bptt {
namespace {

// Bytes of a member that are worth waking it for.
constexpr Index kBytesOfMember = 256 << 10;

// Calls f(i) for `count` rows, shared among threads.
template <class F>
void for_each_row(Index count, Index row_bytes, const Execution& execution, F&& f) {
  const Index members = std::clamp<Index>(count * row_bytes / kBytesOfMember, 1, execution.threads);
  Lease lease(static_cast<int>(members), execution.float_control());
  auto run = [&](int member) {
    const Range mine = share(count, 1, member, lease.size());
    for (Index i = mine.begin; i < mine.end; ++i) f(i);
  };
  lease.run(lease.size(), run);
}

void copy(const std::byte* from, Index row_bytes, std::byte* to) {
  std::memcpy(to, from, static_cast<std::size_t>(row_bytes));
}

}  // namespace

void take_rows(const std::byte* rows, const Index* index, Index count, Index row_bytes,
               std::byte* out, const Execution& execution) {
  for_each_row(count, row_bytes, execution, [=](Index i) {
    std::byte* const to = out + i * row_bytes;
    if (index[i] < 0) {
      std::memset(to, 0, static_cast<std::size_t>(row_bytes));
    } else {
      copy(rows + index[i] * row_bytes, row_bytes, to);
    }
  });
}

void put_rows(const std::byte* rows, const Index* index, Index count, Index row_bytes,
              std::byte* out, const Execution& execution) {
  for_each_row(count, row_bytes, execution,
               [=](Index i) { copy(rows + i * row_bytes, row_bytes, out + index[i] * row_bytes); });
}

}  // namespace bptt
