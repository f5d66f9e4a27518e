// Ends a long call early: when its caller asks (Ctrl-C), all threads skip the work that is left.
#pragma once

#include <atomic>
#include <chrono>
#include <thread>

#include "contract/kernels.h"
#include "engine/float_environment.h"

namespace bptt {

class Interrupt {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr Clock::duration kPeriod = std::chrono::milliseconds(50);

  // `asked` is called on the calling thread, at most once a `period`, in the floating-point
  // environment that this thread has now; true ends the call.
  explicit Interrupt(bool (*asked)(), Clock::duration period = kPeriod)
      : asked_(asked), period_(period) {}

  // Whether the rest of the work is to be skipped; any thread.
  bool stopped() const { return stopped_.load(std::memory_order_relaxed); }

  // Notes that `flops` are done, and asks if it is time to. Only what the calling thread does
  // counts: others may not ask.
  void progress(Index flops) {
    if (std::this_thread::get_id() != caller_) return;
    done_ += flops + kFlopsOfACall;
    if (done_ < kFlopsBetweenClocks) return;
    done_ = 0;
    const auto now = Clock::now();
    if (now - last_ < period_) return;
    last_ = now;
    const FloatEnvironment environment(caller_control_);
    if (asked_()) stopped_.store(true, std::memory_order_relaxed);
  }

 private:
  static constexpr Index kFlopsBetweenClocks = 4'000'000;
  static constexpr Index kFlopsOfACall = 1000;  // small steps, and turns of waiting, take time too

  bool (*asked_)();
  const Clock::duration period_;
  const FloatControl caller_control_ = float_control();
  const std::thread::id caller_ = std::this_thread::get_id();
  // Apart, since all members read it while they wait and the calling thread writes the others.
  alignas(64) std::atomic<bool> stopped_{false};
  alignas(64) Index done_ = 0;
  Clock::time_point last_ = Clock::now();
};

}  // namespace bptt
