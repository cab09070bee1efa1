// Activity: what an engine did lately, as the console draws it: a second-by-second and a
// coarser history, the ranks' last second, and the last errors. Plain values;
// ActivityRecorder fills them, coordinator/api/admin writes them as JSON.
#ifndef TESSERA_COORDINATOR_CONSOLE_ACTIVITY_H_
#define TESSERA_COORDINATOR_CONSOLE_ACTIVITY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace tessera::coordinator {

// One stretch of time. Rates are per second; a latency is absent where nothing happened.
struct ActivitySample {
  absl::Time end;
  double requests = 0;  // that ended
  double failed = 0;    // of them with an error, and those that were refused
  double prompt_tokens = 0;
  double generated_tokens = 0;
  double steps = 0;
  double engram_rows = 0;
  double engram_late_waits = 0;
  std::optional<double> step_ms;            // mean
  std::optional<double> scheduler_ms;       // mean
  std::optional<double> first_token_ms;     // median
  std::optional<double> first_token_ms_95;  // 95th percentile
  std::optional<double> token_gap_ms;
  std::optional<double> token_gap_ms_95;
  std::optional<double> engram_wait_ms;    // mean per step with rows
  std::optional<double> prefix_hit_ratio;  // of the prompt tokens looked up
  std::optional<double> draft_acceptance;
  std::optional<double> expert_imbalance;  // largest of a step: max / mean items
  // At the end of the stretch.
  int64_t running = 0;
  int64_t waiting = 0;
  double kv_used_ratio = 0;
};

// One rank over the last second with steps.
struct RankActivity {
  double steps = 0;  // per second
  double tokens = 0;
  double step_ms = 0;
  double collective_ms = 0;
  double collective_bytes = 0;
  double engram_wait_ms = 0;
  double engram_rows = 0;
  double expert_imbalance = 0;
};

struct BlockUse {
  int64_t total = 0;
  int64_t used = 0;
  int64_t cached = 0;
};

struct ActivityError {
  absl::Time time;
  std::string kind;     // "request", "refused", "group"
  std::string code;     // "deadline_exceeded"…
  std::string subject;  // the request's id, or the epoch
  std::string message;  // of the engine, never of a client; may be empty
};

struct ActivityTotals {
  int64_t requests = 0;
  int64_t failed = 0;
  int64_t refused = 0;
  int64_t prompt_tokens = 0;
  int64_t generated_tokens = 0;
  int64_t group_failures = 0;
  uint64_t preemptions = 0;
  uint64_t prefix_query_tokens = 0;
  uint64_t prefix_hit_tokens = 0;
  uint64_t engram_rows = 0;
  uint64_t engram_late_waits = 0;
};

struct Activity {
  absl::Duration recent_period;
  absl::Duration long_period;
  std::vector<ActivitySample> recent;  // oldest first, without gaps
  std::vector<ActivitySample> past;    // likewise, of long_period each
  std::vector<RankActivity> ranks;     // by rank; empty before the first step
  BlockUse blocks;
  BlockUse tail_blocks;
  ActivityTotals totals;
  std::vector<ActivityError> errors;  // newest first
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_CONSOLE_ACTIVITY_H_
