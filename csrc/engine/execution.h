// How a call is to be computed, whatever it computes.
#pragma once

#include "engine/float_environment.h"

namespace bptt {

struct Execution {
  // Most threads that the call uses. Results do not depend on it, to the last bit.
  int threads;
  // Whether subnormal numbers count as zero, where they are read and where they come out.
  bool flush_subnormals;

  FloatControl float_control() const {
    return flush_subnormals ? kFlushSubnormals : kKeepSubnormals;
  }
};

}  // namespace bptt
