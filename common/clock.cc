#include "common/clock.h"

#include "absl/time/clock.h"
#include "absl/time/time.h"

#include "common/check.h"
#include "common/mutex.h"

namespace tessera {
namespace {

class RealClock final : public Clock {
 public:
  absl::Time Now() override { return absl::Now(); }
  void Sleep(absl::Duration duration) override { absl::SleepFor(duration); }
};

}  // namespace

Clock* Clock::Real() {
  static RealClock clock;
  return &clock;
}

absl::Time SimulatedClock::Now() {
  MutexLock lock(&mutex_);
  return now_;
}

void SimulatedClock::Advance(absl::Duration duration) {
  TESSERA_CHECK(duration >= absl::ZeroDuration());
  MutexLock lock(&mutex_);
  now_ += duration;
}

}  // namespace tessera
