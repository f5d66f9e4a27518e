// Which combinations of parameter values a test takes: all, or with BPTT_TEST_CASES=pairwise few in
// which every pair of values meets, as in tests/covering.py. Those are for runs that are slow,
// under an emulator or a sanitizer.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace bptt::test {

using Case = std::vector<int>;  // the number of a value of each parameter, in one order

inline bool few_cases() {
  const char* cases = std::getenv("BPTT_TEST_CASES");
  return cases && std::string(cases) == "pairwise";
}

// The first parameter of every test that is written for both types.
inline constexpr int kTypes = 2;
template <class T>
inline constexpr int kType = std::is_same_v<T, double>;

// All cases, the last parameter changing first; `counts` are the values that each parameter has.
inline std::vector<Case> product_of(const std::vector<int>& counts) {
  std::vector<Case> all{{}};
  for (int count : counts) {
    std::vector<Case> longer;
    for (const Case& before : all) {
      for (int value = 0; value < count; ++value) {
        longer.push_back(before);
        longer.back().push_back(value);
      }
    }
    all = std::move(longer);
  }
  return all;
}

// The pairs of values, of two parameters each, that have met.
class Pairs {
 public:
  explicit Pairs(const std::vector<int>& counts) : parameters_(counts.size()) {
    widest_ = static_cast<std::size_t>(*std::max_element(counts.begin(), counts.end()));
    met_.resize(parameters_ * parameters_ * widest_ * widest_);
  }

  int missing_of(const Case& c) {
    int missing = 0;
    for_each_of(c, [&](char& met) { missing += !met; });
    return missing;
  }
  void add(const Case& c) {
    for_each_of(c, [](char& met) { met = 1; });
  }

 private:
  template <class F>
  void for_each_of(const Case& c, F&& f) {
    for (std::size_t i = 0; i < parameters_; ++i) {
      for (std::size_t j = i + 1; j < parameters_; ++j) {
        const auto a = static_cast<std::size_t>(c[i]), b = static_cast<std::size_t>(c[j]);
        f(met_[((i * parameters_ + j) * widest_ + a) * widest_ + b]);
      }
    }
  }

  std::size_t parameters_, widest_ = 0;
  std::vector<char> met_;
};

// Greedy: always the case with the most pairs that have not met, the first of several.
inline std::vector<Case> pairwise(const std::vector<int>& counts) {
  const std::vector<Case> all = product_of(counts);
  Pairs pairs(counts);
  std::vector<Case> chosen;
  for (;;) {
    const Case* best = nullptr;
    int most = 0;
    for (const Case& c : all) {
      const int missing = pairs.missing_of(c);
      if (missing > most) most = missing, best = &c;
    }
    if (!best) return chosen;
    pairs.add(*best);
    chosen.push_back(*best);
  }
}

// The cases that this run takes.
class Selection {
 public:
  explicit Selection(const std::vector<int>& counts)
      : all_(!few_cases()), chosen_(all_ ? std::vector<Case>{} : pairwise(counts)) {}

  // Whether a case is taken; of the first values alone, whether any is that begins with them.
  bool has(const Case& first) const {
    return all_ || std::any_of(chosen_.begin(), chosen_.end(), [&](const Case& c) {
             return std::equal(first.begin(), first.end(), c.begin());
           });
  }

 private:
  bool all_;
  std::vector<Case> chosen_;
};

}  // namespace bptt::test
