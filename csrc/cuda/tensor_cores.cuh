// Products by tensor cores: W_hh in tiles of 16 rows and kDepth columns, each spread over a warp as
// mma takes it (PTX ISA, "Matrix Fragments for mma.m16n8k16" and "mma.m16n8k8").
//
// What is multiplied is rounded to the format, W_hh once and states or deltas at each step; sums
// are in float. Rows of the batch are the columns of a product, so they come in eights.
#pragma once

#include "cuda/format.cuh"

namespace bptt::BPTT_ISA {

// A lane's part of a tile of W_hh.
struct alignas(16) Fragment {
  unsigned v[4];
};

// (kHeight, kWidth) (kWidth, kRows) by the warps of a block: kDown of them, at best kWanted, share
// the height, and for each of these kParts the width.
template <class Format, int kHeight, int kWidth, int kThreads, int kRows, int kHeld, int kWanted>
class MmaProduct {
  static constexpr int kWarps = kThreads / 32, kDepth = Format::kDepth, kPacked = Format::kPacked;

  static constexpr bool divides(int down) {
    return kWarps % down == 0 && kHeight / 16 % down == 0 && kWidth / kDepth % (kWarps / down) == 0;
  }
  static constexpr int warps_down() {
    for (int down = kWanted; down > 0; down /= 2) {
      if (divides(down)) return down;
    }
    return kWarps;
  }
  static constexpr int kDown = warps_down();
  static_assert(divides(kDown) && kHeight % 16 == 0 && kWidth % kDepth == 0 && kRows % 8 == 0);

 public:
  using Value = typename Format::Value;
  using Sum = float;
  static constexpr int kParts = kWarps / kDown;
  // Of a warp, in tiles, and how many columns of them stay in registers.
  static constexpr int kTilesDown = kHeight / 16 / kDown, kTilesAcross = kWidth / kDepth / kParts;
  static constexpr int kAtMost = kHeld / kTilesDown;
  static constexpr int kInRegisters = kAtMost < kTilesAcross ? kAtMost : kTilesAcross;
  static constexpr int kKept = kTilesDown * (kTilesAcross - kInRegisters);
  static constexpr int kKeptBytes = kWarps * kKept * 32 * static_cast<int>(sizeof(Fragment));
  // With these, no two lanes meet in a bank of shared memory.
  static constexpr int kPitch = kWidth + 16 / static_cast<int>(sizeof(Value));
  static constexpr int kSumPitch = kHeight + 4;

  static BPTT_INLINE Value value(float v) { return rounded<Format>(v); }

  // From element(row, column) of W_hh.
  template <class Element>
  BPTT_INLINE void load_from(Element element, unsigned char* kept) {
    kept_ = reinterpret_cast<Fragment*>(kept) + warp() * kKept * 32 + lane();
    // One tile at a time: an unrolled loop would have the loads of all in flight, and spill.
    BPTT_ROLL for (int i = 0; i < kTilesDown * kInRegisters; ++i) {
      const Fragment tile = fragment(element, i % kTilesDown, i / kTilesDown);
      BPTT_UNROLL for (int j = 0; j < kTilesDown * kInRegisters; ++j) {
        if (i == j) held_[j / kTilesDown][j % kTilesDown] = tile;
      }
    }
    BPTT_ROLL for (int i = 0; i < kKept; ++i) {
      kept_[i * 32] = fragment(element, i % kTilesDown, kInRegisters + i / kTilesDown);
    }
  }

  // This warp's share of the sums (kParts, kRows, kSumPitch), from values (kRows, kPitch).
  BPTT_INLINE void multiply(const Value* values, float* sums) const {
    float acc[kTilesDown][kEights][4] = {};
    rejoin_warp();
    BPTT_UNROLL for (int across = 0; across < kInRegisters; ++across) {
      add(acc, values, across, [&](int down) { return held_[across][down]; });
    }
    BPTT_UNROLL_BY_2 for (int across = kInRegisters; across < kTilesAcross; ++across) {
      const Fragment* const first = kept_ + (across - kInRegisters) * kTilesDown * 32;
      add(acc, values, across, [&](int down) { return first[down * 32]; });
    }
    BPTT_UNROLL for (int down = 0; down < kTilesDown; ++down) {
      BPTT_UNROLL for (int eight = 0; eight < kEights; ++eight) {
        BPTT_UNROLL for (int i = 0; i < 4; ++i) {
          const int row = eight * 8 + quarter() * 2 + i % 2;
          const int at = (down_of_warp() * kTilesDown + down) * 16 + eighth() + 8 * (i / 2);
          sums[(part() * kRows + row) * kSumPitch + at] = acc[down][eight][i];
        }
      }
    }
  }

 private:
  static constexpr int kEights = kRows / 8;

  template <class Element>
  BPTT_INLINE Fragment fragment(Element element, int down, int across) const {
    Fragment found;
    BPTT_UNROLL for (int i = 0; i < 4; ++i) {
      const int row = (down_of_warp() * kTilesDown + down) * 16 + eighth() + 8 * (i % 2);
      const int column = column_of(across, i / 2);
      found.v[i] = value(element(row, column));
      if constexpr (kPacked == 2) {
        found.v[i] |= static_cast<unsigned>(value(element(row, column + 1))) << 16;
      }
    }
    return found;
  }

  // Where a lane's values of one of the halves of a tile begin.
  BPTT_INLINE int column_of(int across, int half) const {
    return (part() * kTilesAcross + across) * kDepth + half * (kDepth / 2) + quarter() * kPacked;
  }

  template <class Held>
  BPTT_INLINE void add(float (&acc)[kTilesDown][kEights][4], const Value* values, int across,
                       Held held) const {
    unsigned right[kEights][2];
    BPTT_UNROLL for (int eight = 0; eight < kEights; ++eight) {
      const Value* const row = values + (eight * 8 + eighth()) * kPitch;
      BPTT_UNROLL for (int half = 0; half < 2; ++half) {
        right[eight][half] = load_word(row + column_of(across, half));
      }
    }
    BPTT_UNROLL for (int down = 0; down < kTilesDown; ++down) {
      const Fragment left = held(down);
      BPTT_UNROLL for (int eight = 0; eight < kEights; ++eight) {
        mma<Format>(acc[down][eight], left.v, right[eight]);
      }
    }
  }

  static BPTT_INLINE int lane() { return thread_index() % 32; }
  static BPTT_INLINE int warp() { return thread_index() / 32; }
  static BPTT_INLINE int eighth() { return lane() / 4; }
  static BPTT_INLINE int quarter() { return lane() % 4; }
  // Which of the shares of the height is the warp's, and which of those of the width.
  static BPTT_INLINE int down_of_warp() { return warp() % kDown; }
  static BPTT_INLINE int part() { return warp() / kDown; }

  Fragment* kept_ = nullptr;  // this lane's, of tile i at 32 i
  Fragment held_[kInRegisters ? kInRegisters : 1][kTilesDown] = {};
};

// W_hh S: a block's rows, gate by gate, and all columns.
template <class Format, int kGates, int kUnits, int kColumns, int kThreads, int kRows, int kHeld>
class MmaForward : public MmaProduct<Format, kGates * kUnits, kColumns, kThreads, kRows, kHeld, 4> {
 public:
  // The rows of units from `first_unit` on; zeros where there are none.
  BPTT_INLINE void load(const float* w_hh, Index hidden, Index first_unit, unsigned char* kept) {
    const auto element = [=](int row, int column) {
      const Index unit = first_unit + row % kUnits;
      const bool exists = unit < hidden && column < hidden;
      return exists ? w_hh[(row / kUnits * hidden + unit) * hidden + column] : 0.0f;
    };
    this->load_from(element, kept);
  }
};

// W_hhᵀ da: the same turned round.
template <class Format, int kGates, int kUnits, int kColumns, int kThreads, int kRows, int kHeld>
class MmaBackward
    : public MmaProduct<Format, kColumns, kGates * kUnits, kThreads, kRows, kHeld, 8> {
 public:
  BPTT_INLINE void load(const float* w_hh, Index hidden, Index first_unit, unsigned char* kept) {
    const auto element = [=](int row, int column) {
      const Index unit = first_unit + column % kUnits;
      const bool exists = unit < hidden && row < hidden;
      return exists ? w_hh[(column / kUnits * hidden + unit) * hidden + row] : 0.0f;
    };
    this->load_from(element, kept);
  }
};

}  // namespace bptt::BPTT_ISA
