#include "sequences/row_map.h"

#include <algorithm>
#include <numeric>

namespace bptt {
namespace {

struct Piece {
  Index sequence;
  Index begin;  // in the order of processing
  Index length;
};

Index length_of(const Padded& p, Index b) { return p.lengths ? p.lengths[b] : p.steps; }

// The caller's row of step `k`, in the order of processing, of a sequence.
Index row_of(const Padded& p, Index b, Index k) {
  const Index t = p.reverse ? length_of(p, b) - 1 - k : k;
  return t * p.batch + b;
}

bool begins_anew(const Padded& p, Index b, Index k) {
  return p.reset && p.reset[row_of(p, b, k)] != 0;
}

bool whole(const Padded& p) {
  const auto full = [&](std::int32_t length) { return length == p.steps; };
  return !p.reverse && (!p.lengths || std::all_of(p.lengths, p.lengths + p.batch, full)) &&
         (!p.reset || std::all_of(p.reset, p.reset + p.steps * p.batch,
                                  [](std::uint8_t flag) { return flag == 0; }));
}

// Of all sequences, those of each in the order of processing. One without steps has a piece, too:
// its state goes through.
std::vector<Piece> pieces_of(const Padded& p) {
  std::vector<Piece> pieces;
  for (Index b = 0; b < p.batch; ++b) {
    const Index length = length_of(p, b);
    Index begin = 0;
    for (Index k = 1; k < length; ++k) {
      if (!begins_anew(p, b, k)) continue;
      pieces.push_back({b, begin, k - begin});
      begin = k;
    }
    pieces.push_back({b, begin, length - begin});
  }
  return pieces;
}

}  // namespace

bool Padded::valid() const {
  return !lengths || std::all_of(lengths, lengths + batch, [&](std::int32_t length) {
    return 0 <= length && length <= steps;
  });
}

RowMap::RowMap(const Padded& p) {
  if (whole(p)) {
    same = dense = true;
    steps = p.steps;
    batch = p.batch;
    return;
  }
  std::vector<Piece> pieces = pieces_of(p);
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const Piece& a, const Piece& b) { return a.length > b.length; });
  batch = static_cast<Index>(pieces.size());
  steps = pieces.empty() ? 0 : pieces.front().length;
  dense = pieces.empty() || pieces.back().length == steps;
  offsets.reserve(static_cast<std::size_t>(steps + 1));
  offsets.push_back(0);
  places.assign(static_cast<std::size_t>(p.steps * p.batch), -1);
  auto active = pieces.end();
  for (Index k = 0; k < steps; ++k) {
    while ((active - 1)->length <= k) --active;
    for (auto piece = pieces.begin(); piece != active; ++piece) {
      const Index source = row_of(p, piece->sequence, piece->begin + k);
      places[static_cast<std::size_t>(source)] = static_cast<Index>(sources.size());
      sources.push_back(source);
    }
    offsets.push_back(static_cast<Index>(sources.size()));
  }
  entering.assign(pieces.size(), -1);
  first.assign(static_cast<std::size_t>(p.batch), -1);
  last.resize(first.size());
  for (Index i = 0; i < batch; ++i) {
    const Piece& piece = pieces[static_cast<std::size_t>(i)];
    const auto b = static_cast<std::size_t>(piece.sequence);
    if (piece.begin + piece.length == length_of(p, piece.sequence)) last[b] = i;
    if (piece.begin > 0 || (piece.length > 0 && begins_anew(p, piece.sequence, 0))) continue;
    first[b] = i;
    entering[static_cast<std::size_t>(i)] = piece.sequence;
  }
}

std::vector<Index> RowMap::ending() const {
  std::vector<Index> found(static_cast<std::size_t>(batch), -1);
  for (std::size_t b = 0; b < last.size(); ++b) {
    found[static_cast<std::size_t>(last[b])] = static_cast<Index>(b);
  }
  return found;
}

}  // namespace bptt
