// ActivityWindow: one history of ActivityRecorder: stretches of equal length, the present
// one open, the oldest dropped.
#ifndef TESSERA_COORDINATOR_CONSOLE_ACTIVITY_WINDOW_H_
#define TESSERA_COORDINATOR_CONSOLE_ACTIVITY_WINDOW_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "absl/time/time.h"

#include "coordinator/console/activity.h"
#include "coordinator/console/latency_counts.h"
#include "coordinator/requests/engine_observer.h"

namespace tessera::coordinator {

// External synchronisation.
class ActivityWindow {
 public:
  // Keeps `capacity` stretches of `period`; the first begins at `start`.
  ActivityWindow(absl::Duration period, size_t capacity, absl::Time start);

  // Closes the stretches that ended by `now`. Gauges carry on into stretches without
  // steps. Costs at most `capacity` stretches, however long ago the last call was.
  void AdvanceTo(absl::Time now);

  // Of the open stretch; call AdvanceTo before.
  void AddStep(const StepObservation& step);
  void AddTokenGap(absl::Duration gap) { token_gaps_.Add(gap); }
  void AddFirstToken(absl::Duration time) { first_tokens_.Add(time); }
  void AddRequest(bool failed, int64_t count = 1);

  absl::Duration period() const { return period_; }
  // The last `count` closed stretches, or as many as there are, oldest first.
  std::vector<ActivitySample> Samples(size_t count) const;

 private:
  struct Sums {
    int64_t requests = 0;
    int64_t failed = 0;
    int64_t prompt_tokens = 0;
    int64_t generated_tokens = 0;
    int64_t steps = 0;
    absl::Duration step_time;
    absl::Duration scheduler_time;
    uint64_t engram_rows = 0;
    uint64_t engram_late_waits = 0;
    uint64_t engram_wait_ns = 0;  // the longest of each step's ranks
    int64_t engram_steps = 0;
    int64_t draft_tokens = 0;
    int64_t accepted_drafts = 0;
    double expert_imbalance = 0;
  };

  void Close();

  const absl::Duration period_;
  const size_t capacity_;
  absl::Time start_;  // of the open stretch
  Sums sums_;
  LatencyCounts first_tokens_;
  LatencyCounts token_gaps_;
  EngineGauges gauges_;  // of the last step
  uint64_t query_tokens_seen_ = 0;
  uint64_t hit_tokens_seen_ = 0;
  std::deque<ActivitySample> ring_;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_CONSOLE_ACTIVITY_WINDOW_H_
