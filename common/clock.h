// Clock: the only source of time. Everything that waits, times out or stamps takes a
// Clock, so that a simulation can drive it. Time is absl::Time; real clocks give wall
// time that is fit for both deadlines and timestamps.
#ifndef TESSERA_COMMON_CLOCK_H_
#define TESSERA_COMMON_CLOCK_H_

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

#include "common/mutex.h"

namespace tessera {

// Thread-safe. Implementations must never go backwards.
class Clock {
 public:
  virtual ~Clock() = default;

  virtual absl::Time Now() = 0;

  // Blocks the calling thread for `duration`; a simulated clock advances itself instead.
  virtual void Sleep(absl::Duration duration) = 0;

  // The process-wide real clock; it has no state, and main() hands it out.
  static Clock* Real();
};

// A clock that moves only when told. Thread-safe.
class SimulatedClock final : public Clock {
 public:
  explicit SimulatedClock(absl::Time start = absl::UnixEpoch()) : now_(start) {}

  absl::Time Now() override;
  void Sleep(absl::Duration duration) override { Advance(duration); }

  // Moves forward; a negative duration is a bug.
  void Advance(absl::Duration duration);

 private:
  Mutex mutex_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tessera

#endif  // TESSERA_COMMON_CLOCK_H_
