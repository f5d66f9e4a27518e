#include "engine/carried.h"

#include <cmath>

namespace bptt {

void CompensatedSum::add(double term) {
  const double sum = sum_ + term;
  rounded_off_ += std::abs(sum_) >= std::abs(term) ? (sum_ - sum) + term : (term - sum) + sum_;
  sum_ = sum;
}

double CompensatedSum::value() const {
  return std::isfinite(rounded_off_) ? sum_ + rounded_off_ : sum_;
}

}  // namespace bptt
