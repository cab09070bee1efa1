// ActivityRecorder: listens to the engine, passes everything on to another observer, and
// keeps what the console shows (Activity). Bounded: 300 seconds, an hour in stretches of
// 12 s, 50 errors.
#ifndef TESSERA_COORDINATOR_CONSOLE_ACTIVITY_RECORDER_H_
#define TESSERA_COORDINATOR_CONSOLE_ACTIVITY_RECORDER_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "coordinator/console/activity.h"
#include "coordinator/console/activity_window.h"
#include "coordinator/console/expert_loads.h"
#include "coordinator/requests/engine_observer.h"

namespace tessera::coordinator {

// Thread-safe; the engine calls from its thread, doors read from theirs. `next` is called
// first and without the lock.
class ActivityRecorder final : public EngineObserver {
 public:
  // All must outlive it; `next` may be null, and `experts`, which gets the reports of
  // routed items.
  ActivityRecorder(EngineObserver* next, Clock* clock, ExpertLoads* experts = nullptr);

  void OnStep(const StepObservation& step) override;
  void OnExpertCounts(std::span<const uint32_t> counts) override;
  void OnToken(std::optional<absl::Duration> gap) override;
  void OnRequestFinished(const RequestObservation& request) override;
  void OnPreemptions(int64_t count) override;
  void OnRejected(const absl::Status& reason) override;
  void OnGroupReady(uint64_t epoch) override;
  void OnGroupFailed(uint64_t epoch, const absl::Status& reason) override;

  // `whole`: with both histories, else with the last second's sample alone.
  Activity Read(bool whole);

 private:
  // Sums of one rank over the present second.
  struct RankSums {
    int64_t steps = 0;
    proto::StepCounters counters;
  };

  void AdvanceTo(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AddRanks(const StepObservation& step) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AddRequest(bool failed) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AddError(ActivityError error) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  EngineObserver silent_;
  EngineObserver* const next_;
  Clock* const clock_;
  ExpertLoads* const experts_;
  Mutex mutex_;
  ActivityWindow recent_ ABSL_GUARDED_BY(mutex_);
  ActivityWindow past_ ABSL_GUARDED_BY(mutex_);
  absl::Time second_start_ ABSL_GUARDED_BY(mutex_);
  std::vector<RankSums> rank_sums_ ABSL_GUARDED_BY(mutex_);
  std::vector<RankActivity> ranks_ ABSL_GUARDED_BY(mutex_);
  EngineGauges gauges_ ABSL_GUARDED_BY(mutex_);
  ActivityTotals totals_ ABSL_GUARDED_BY(mutex_);
  std::deque<ActivityError> errors_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_CONSOLE_ACTIVITY_RECORDER_H_
