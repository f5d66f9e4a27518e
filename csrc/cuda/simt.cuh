// Products by fused multiply-adds, with W_hh in registers.
//
// A block has kSlice = kGates kUnits rows of W_hh. Forward, a thread has kDepth columns of one
// unit, so that a load of four states feeds all gates; back, of the same slice, four columns of
// kDepth rows.
#pragma once

#include "simd/one_lane.h"

namespace bptt::BPTT_ISA {

// Four values that are loaded at once, by 16 bytes.
template <class T>
struct alignas(16) Four {
  T v[4];
};

// W_hh S: thread (part, unit).
template <class T, int kGates, int kUnits, int kColumns, int kThreads, int kRows>
class SimtForward {
 public:
  using Value = T;
  using Sum = T;
  static constexpr int kParts = kThreads / kUnits, kPitch = kColumns, kSumPitch = kGates * kUnits;
  static constexpr int kKeptBytes = 0;

  static BPTT_INLINE T value(T s) { return s; }

  // The rows of units from `first_unit` on; zeros where there are none.
  BPTT_INLINE void load(const T* w_hh, Index hidden, Index first_unit, unsigned char*) {
    BPTT_UNROLL for (int g = 0; g < kGates; ++g) {
      BPTT_UNROLL for (int k = 0; k < kDepth; ++k) {
        const Index unit = first_unit + place(), column = part() * kDepth + k;
        const bool exists = unit < hidden && column < hidden;
        w_[g][k] = exists ? w_hh[(g * hidden + unit) * hidden + column] : T(0);
      }
    }
  }

  // This thread's share of the sums (kParts, kRows, kSumPitch), from states (kRows, kPitch).
  BPTT_INLINE void multiply(const T* states, T* sums) const {
    T acc[kGates][kRows] = {};
    BPTT_UNROLL for (int k = 0; k < kDepth; k += 4) {
      BPTT_UNROLL for (int row = 0; row < kRows; ++row) {
        const T* const from = states + row * kPitch + part() * kDepth + k;
        const Four<T> s = *reinterpret_cast<const Four<T>*>(from);
        BPTT_UNROLL for (int j = 0; j < 4; ++j) {
          BPTT_UNROLL for (int g = 0; g < kGates; ++g) {
            acc[g][row] = fma(w_[g][k + j], s.v[j], acc[g][row]);
          }
        }
      }
    }
    BPTT_UNROLL for (int row = 0; row < kRows; ++row) {
      BPTT_UNROLL for (int g = 0; g < kGates; ++g) {
        sums[(part() * kRows + row) * kSumPitch + g * kUnits + place()] = acc[g][row];
      }
    }
  }

 private:
  static constexpr int kDepth = kColumns / kParts;
  static_assert(kParts * kUnits == kThreads && kDepth * kParts == kColumns && kDepth % 4 == 0);

  static BPTT_INLINE int place() { return thread_index() % kUnits; }
  static BPTT_INLINE int part() { return thread_index() / kUnits; }

  T w_[kGates][kDepth];
};

// W_hhᵀ da: thread (part, quad of columns).
template <class T, int kGates, int kUnits, int kColumns, int kThreads, int kRows>
class SimtBackward {
 public:
  using Value = T;
  using Sum = T;
  static constexpr int kQuads = kColumns / 4, kParts = kThreads / kQuads;
  static constexpr int kPitch = kGates * kUnits, kSumPitch = kColumns, kKeptBytes = 0;

  static BPTT_INLINE T value(T delta) { return delta; }

  BPTT_INLINE void load(const T* w_hh, Index hidden, Index first_unit, unsigned char*) {
    BPTT_UNROLL for (int r = 0; r < kDepth; ++r) {
      BPTT_UNROLL for (int j = 0; j < 4; ++j) {
        const int i = part() * kDepth + r;
        const Index unit = first_unit + i % kUnits, column = quad() * 4 + j;
        const bool exists = unit < hidden && column < hidden;
        w_[r][j] = exists ? w_hh[(i / kUnits * hidden + unit) * hidden + column] : T(0);
      }
    }
  }

  // This thread's share of the sums (kParts, kRows, kSumPitch), from deltas (kRows, kPitch).
  BPTT_INLINE void multiply(const T* deltas, T* sums) const {
    T acc[kRows][4] = {};
    BPTT_UNROLL for (int r = 0; r < kDepth; r += 4) {
      BPTT_UNROLL for (int row = 0; row < kRows; ++row) {
        const T* const from = deltas + row * kPitch + part() * kDepth + r;
        const Four<T> d = *reinterpret_cast<const Four<T>*>(from);
        BPTT_UNROLL for (int q = 0; q < 4; ++q) {
          BPTT_UNROLL for (int j = 0; j < 4; ++j) {
            acc[row][j] = fma(w_[r + q][j], d.v[q], acc[row][j]);
          }
        }
      }
    }
    BPTT_UNROLL for (int row = 0; row < kRows; ++row) {
      BPTT_UNROLL for (int j = 0; j < 4; ++j) {
        sums[(part() * kRows + row) * kSumPitch + quad() * 4 + j] = acc[row][j];
      }
    }
  }

 private:
  static constexpr int kDepth = kPitch / kParts;
  static_assert(kParts * kQuads == kThreads && kDepth * kParts == kPitch && kDepth % 4 == 0);

  static BPTT_INLINE int quad() { return thread_index() % kQuads; }
  static BPTT_INLINE int part() { return thread_index() / kQuads; }

  T w_[kDepth][4];
};

}  // namespace bptt::BPTT_ISA
