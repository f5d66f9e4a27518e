// Checks, and the loop over the tests of an executable.
//
// A check that fails prints its place, its values and the scopes it is in, is counted, and lets the
// test go on. A test is a function without arguments whose name says what it promises.
#pragma once

#include <cstdio>
#include <functional>
#include <initializer_list>
#include <iostream>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#define CHECK(condition) ::bptt::test::check((condition), "", #condition, __FILE__, __LINE__)
#define CHECK_EQUAL(a, b) ::bptt::test::check_equal(a, b, #a " == " #b, __FILE__, __LINE__)
#define CHECK_AT_MOST(a, b) ::bptt::test::check_at_most(a, b, #a " <= " #b, __FILE__, __LINE__)

namespace bptt::test {

inline constexpr int kSkipped = 77;          // the exit status that ctest reports as skipped
inline constexpr int kPrintedFailures = 30;  // the rest is only counted
inline int failures = 0;

// What the checks of a block are about; put into words only when one of them fails.
class Scope {
 public:
  explicit Scope(std::function<void(std::ostream&)> describe) : describe_(std::move(describe)) {
    open().push_back(this);
  }
  ~Scope() { open().pop_back(); }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

  static void print(std::ostream& out) {
    for (const Scope* scope : open()) {
      out << "    in ";
      scope->describe_(out);
      out << '\n';
    }
  }

 private:
  static std::vector<const Scope*>& open() {
    static std::vector<const Scope*> scopes;
    return scopes;
  }
  std::function<void(std::ostream&)> describe_;
};

// Returns whether the check holds.
inline bool check(bool holds, const std::string& values, const char* text, const char* file,
                  int line) {
  if (holds) return true;
  if (++failures <= kPrintedFailures) {
    std::cout << file << ':' << line << ": failed: " << text << values << '\n';
    Scope::print(std::cout);
  }
  return false;
}

template <class A, class B>
std::string values_of(const A& a, const B& b) {
  std::ostringstream out;
  out.precision(std::numeric_limits<double>::max_digits10);
  out << "  (" << a << " and " << b << ')';
  return out.str();
}

template <class A, class B>
bool check_equal(const A& a, const B& b, const char* text, const char* file, int line) {
  return a == b || check(false, values_of(a, b), text, file, line);
}

// False for NaN.
template <class A, class B>
bool check_at_most(const A& a, const B& b, const char* text, const char* file, int line) {
  return a <= b || check(false, values_of(a, b), text, file, line);
}

struct Test {
  const char* name;
  void (*run)();
};

// Runs all tests; returns the exit status of the executable.
inline int run_tests(std::initializer_list<Test> tests) {
  for (const Test& test : tests) {
    const int before = failures;
    test.run();
    std::cout << (failures == before ? "passed  " : "FAILED  ") << test.name << std::endl;
  }
  if (failures > 0) std::cout << failures << " checks failed" << std::endl;
  return failures > 0;
}

}  // namespace bptt::test
