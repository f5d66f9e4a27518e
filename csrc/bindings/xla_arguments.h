// What XLA passes to a handler, as plain pointers. Each operand and each result is one of `Place`;
// which ones there are, a bit for each tells, and they come in this order
// (python/bptt/jax/calls.py).
#pragma once

#include <bit>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>

#include "contract/kernels.h"
#include "xla/ffi/api/ffi.h"

namespace bptt {

namespace ffi = xla::ffi;

enum class Place : int {
  x,
  h,
  c,
  w_ih,
  w_hh,
  b_ih,
  b_hh,
  lengths,
  reset,  // what goes into a layer
  y,
  c_y,
  saved,  // what it keeps
  last_h,
  last_c,  // the state after it
};
inline constexpr const char* kPlaceNames[] = {"x",    "h",     "c",       "w_ih",  "w_hh",
                                              "b_ih", "b_hh",  "lengths", "reset", "y",
                                              "c_y",  "saved", "last_h",  "last_c"};

class OperandSet {
 public:
  explicit OperandSet(std::int64_t bits) : bits_(bits) {}
  OperandSet(std::initializer_list<Place> places) {
    for (Place place : places) bits_ |= std::int64_t{1} << static_cast<int>(place);
  }

  bool within(const OperandSet& other) const { return (bits_ & ~other.bits_) == 0; }
  bool has(Place place) const { return (bits_ >> static_cast<int>(place) & 1) != 0; }
  // Where it stands among those that there are.
  std::size_t index(Place place) const {
    const std::int64_t before = bits_ & ((std::int64_t{1} << static_cast<int>(place)) - 1);
    return static_cast<std::size_t>(std::popcount(static_cast<std::uint64_t>(before)));
  }
  std::size_t count() const {
    return static_cast<std::size_t>(std::popcount(static_cast<std::uint64_t>(bits_)));
  }

 private:
  std::int64_t bits_ = 0;
};

template <class T>
constexpr ffi::DataType kDataType = ffi::DataType::F32;
template <>
inline constexpr ffi::DataType kDataType<double> = ffi::DataType::F64;
template <>
inline constexpr ffi::DataType kDataType<std::int32_t> = ffi::DataType::S32;
template <>
inline constexpr ffi::DataType kDataType<bool> = ffi::DataType::PRED;

inline std::invalid_argument unexpected(Place place, const char* what) {
  return std::invalid_argument(std::string(kPlaceNames[static_cast<int>(place)]) + ": unexpected " +
                               what);
}

// The data, if there is any, of that type and shape: an exported program may have been changed.
template <class T>
T* data_of(Place place, const ffi::AnyBuffer& buffer, std::initializer_list<Index> shape) {
  if (buffer.element_type() != kDataType<T>) throw unexpected(place, "dtype");
  const auto sizes = buffer.dimensions();
  bool fits = sizes.size() == shape.size();
  for (std::size_t i = 0; fits && i < sizes.size(); ++i) fits = sizes[i] == shape.begin()[i];
  if (!fits) throw unexpected(place, "shape");
  static T none{};  // where an empty array has no address
  void* const data = buffer.untyped_data();
  return data ? static_cast<T*>(data) : &none;
}

// Operands of a call, from the one at `first` on.
class Operands {
 public:
  Operands(const ffi::RemainingArgs& args, std::int64_t places, std::size_t first = 0)
      : args_(args), places_(places), first_(first) {}

  bool has(Place place) const { return places_.has(place); }
  ffi::AnyBuffer buffer(Place place) const {
    if (!has(place)) throw unexpected(place, "absence");
    const auto found = args_.get<ffi::AnyBuffer>(first_ + places_.index(place));
    if (!found.has_value()) throw unexpected(place, "absence");
    return *found;
  }
  // Null if it is not there.
  template <class T>
  const T* get(Place place, std::initializer_list<Index> shape) const {
    return has(place) ? data_of<T>(place, buffer(place), shape) : nullptr;
  }

 private:
  const ffi::RemainingArgs& args_;
  const OperandSet places_;
  const std::size_t first_;
};

class Results {
 public:
  Results(const ffi::RemainingRets& rets, std::int64_t places) : rets_(rets), places_(places) {}

  bool has(Place place) const { return places_.has(place); }
  // Throws if there are others, which nobody would write.
  void expect_among(const OperandSet& places) const {
    if (!places_.within(places)) throw std::invalid_argument("results: unexpected ones");
  }
  template <class T>
  T* get(Place place, std::initializer_list<Index> shape) const {
    if (!places_.has(place)) return nullptr;
    auto found = rets_.get<ffi::AnyBuffer>(places_.index(place));
    if (!found.has_value()) throw unexpected(place, "absence");
    return data_of<T>(place, **found, shape);
  }

 private:
  const ffi::RemainingRets& rets_;
  const OperandSet places_;
};

}  // namespace bptt
