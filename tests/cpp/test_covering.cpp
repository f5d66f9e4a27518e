// The few cases of covering.h: in them every pair of parameter values meets.
#include "covering.h"

#include <set>

#include "check.h"

namespace bptt::test {
namespace {

using Pair = std::vector<int>;  // two parameters and the value of each

std::set<Pair> pairs_of(const std::vector<Case>& cases) {
  std::set<Pair> pairs;
  for (const Case& c : cases) {
    for (int i = 0; i < static_cast<int>(c.size()); ++i) {
      for (int j = i + 1; j < static_cast<int>(c.size()); ++j) {
        pairs.insert({i, j, c[static_cast<std::size_t>(i)], c[static_cast<std::size_t>(j)]});
      }
    }
  }
  return pairs;
}

void every_pair_meets_in_few_cases() {
  for (const std::vector<int>& counts :
       {std::vector<int>{2, 5, 15, 2, 4, 2}, {2, 5}, {2, 5, 6, 3}}) {
    const std::vector<Case> all = product_of(counts), few = pairwise(counts);
    CHECK(pairs_of(few) == pairs_of(all));
    CHECK(counts.size() == 2 ? few.size() == all.size() : 2 * few.size() < all.size());
  }
}

void without_the_variable_all_cases_are_taken() {
  unsetenv("BPTT_TEST_CASES");
  const Selection all({2, 3, 2});
  for (const Case& c : product_of({2, 3, 2})) CHECK(all.has(c));
}

void with_it_those_of_the_covering_array_are() {
  setenv("BPTT_TEST_CASES", "pairwise", 1);
  const Selection selection({2, 3, 2});
  std::vector<Case> taken;
  for (const Case& c : product_of({2, 3, 2})) {
    if (selection.has(c)) taken.push_back(c);
  }
  std::vector<Case> expected = pairwise({2, 3, 2});
  std::sort(expected.begin(), expected.end());
  CHECK(taken == expected);
  CHECK(selection.has({1, 2}));
}

}  // namespace
}  // namespace bptt::test

int main() {
  using namespace bptt::test;
  return run_tests(
      {{"every pair meets in few cases", every_pair_meets_in_few_cases},
       {"without the variable all cases are taken", without_the_variable_all_cases_are_taken},
       {"with it those of the covering array are", with_it_those_of_the_covering_array_are}});
}
