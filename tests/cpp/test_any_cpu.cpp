// The floating-point environment by means of the C library, as CPUs have it whose control register
// is not known: round to nearest within, the thread's own afterwards.
#define BPTT_ANY_CPU
#include "engine/float_environment.h"

#include "check.h"

namespace bptt::test {
namespace {

double third() {
  volatile double one = 1, three = 3;
  return one / three;
}

void computes_to_nearest_and_restores() {
  const FloatControl before = float_control();
  std::fesetround(FE_UPWARD);
  const double upward = third();
  double nearest;
  {
    const FloatEnvironment environment(kFlushSubnormals);
    nearest = third();
  }
  CHECK_EQUAL(nearest, 0x1.5555555555555p-2);
  CHECK(upward > nearest);
  CHECK_EQUAL(third(), upward);
  CHECK_EQUAL(std::fegetround(), FE_UPWARD);
  set_float_control(before);
  CHECK_EQUAL(third(), nearest);
}

}  // namespace
}  // namespace bptt::test

int main() {
  using namespace bptt::test;
  return run_tests({{"computes to nearest and restores", computes_to_nearest_and_restores}});
}
