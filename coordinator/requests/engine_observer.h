// EngineObserver: what the engine tells about its work, for metrics. The step loop
// measures and calls; the metrics registry implements. The engine knows no metric name,
// the registry no scheduler type.
#ifndef TESSERA_COORDINATOR_REQUESTS_ENGINE_OBSERVER_H_
#define TESSERA_COORDINATOR_REQUESTS_ENGINE_OBSERVER_H_

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "proto/step_plan.h"

namespace tessera::coordinator {

// One configured tenant: what it has at present, and totals since start.
struct TenantGauges {
  int64_t num_waiting = 0;
  int64_t num_running = 0;
  int64_t running_tokens = 0;     // at the greatest length of what runs
  uint64_t scheduled_tokens = 0;  // monotonic
  uint64_t preemptions = 0;       // monotonic
};

// State of the queue and of the KV blocks, over all data-parallel ranks, and totals since
// start.
struct EngineGauges {
  int64_t num_waiting = 0;     // sequences (choices), not requests
  int64_t num_running = 0;     // sequences that hold a slot
  int64_t waiting_tokens = 0;  // tokens that the waiting ones have to compute
  int64_t blocks_total = 0;
  int64_t blocks_used = 0;        // referenced by a sequence or by a plan in flight
  int64_t blocks_cached = 0;      // free, with reusable content
  int64_t tail_blocks_total = 0;  // 0 for a model that keeps none
  int64_t tail_blocks_used = 0;
  int64_t tail_blocks_cached = 0;
  uint64_t prefix_query_tokens = 0;  // monotonic
  uint64_t prefix_hit_tokens = 0;    // monotonic
  // Monotonic: cached tokens that were no hit since their tail blocks were gone.
  uint64_t prefix_shortened_tokens = 0;
  uint64_t preemptions = 0;        // monotonic
  int64_t host_blocks_total = 0;   // 0 without a host tier
  int64_t host_blocks_cached = 0;  // with content
  // Monotonic: of the hits those from the host, and blocks and tail blocks copied there
  // and back.
  uint64_t host_hit_tokens = 0;
  int64_t disk_blocks_total = 0;   // 0 without a disk tier
  int64_t disk_blocks_cached = 0;  // with content
  // Monotonic: of the hits those that were fetched from the disk; blocks and tail blocks
  // to be written there and read, and those that failed; sequences that waited for it,
  // and those that waited too long.
  uint64_t disk_hit_tokens = 0;
  uint64_t spilled_blocks = 0;
  uint64_t fetched_blocks = 0;
  uint64_t failed_disk_copies = 0;
  uint64_t disk_waits = 0;
  uint64_t given_up_disk_waits = 0;
  uint64_t offloaded_blocks = 0;
  uint64_t restored_blocks = 0;
  // Monotonic: what prefill ranks handed to decode ranks. Sequences whole or in part,
  // tokens and blocks that were sent.
  uint64_t handed_over_sequences = 0;
  uint64_t given_up_sequences = 0;
  uint64_t handed_over_tokens = 0;
  uint64_t handed_over_blocks = 0;  // tail blocks included
  uint64_t handed_over_recomputed_tokens = 0;
  // In the order of MetricsOptions::tenants; valid during the call.
  std::span<const TenantGauges> tenants = {};
};

// What became of the drafts of one step, over all data-parallel ranks.
struct DraftObservation {
  int64_t num_drafts = 0;        // sequences of which drafts were verified
  int64_t num_draft_tokens = 0;  // drafts verified
  std::array<int64_t, proto::kMaxDrafts> accepted = {};  // by position of the draft
};

// One finished step.
struct StepObservation {
  absl::Duration step_time;       // from handing over the plans to the last rank's result
  absl::Duration scheduler_time;  // Plan and Accept of this step
  int64_t num_tokens = 0;         // positions planned
  int64_t num_prefill_tokens = 0;
  int64_t num_sequences = 0;
  int64_t num_accepted_tokens = 0;  // generated tokens that reached a request
  DraftObservation drafts;
  bool probe = false;  // a health step of an idle group
  // One per rank, in rank order; valid during the call.
  std::span<const proto::StepCounters> rank_counters;
  EngineGauges gauges;
};

enum class RequestOutcome { kStop, kLength, kAbort, kError };

// One request whose last event was sent. Times are from arrival at the door, absent where
// the request ended before the point in question.
struct RequestObservation {
  std::string request_id;
  RequestOutcome outcome = RequestOutcome::kStop;
  absl::StatusCode code = absl::StatusCode::kOk;  // why, for kAbort and kError
  int64_t prompt_tokens = 0;
  int64_t cached_prompt_tokens = 0;
  int64_t completion_tokens = 0;  // all choices
  int64_t max_tokens = 0;
  int32_t num_choices = 1;
  absl::Duration total_time;                       // arrival to last event
  std::optional<absl::Duration> queue_time;        // arrival to first planned step
  std::optional<absl::Duration> first_token_time;  // arrival to first token
  std::optional<absl::Duration> decode_time;       // first token to last token
};

// Called from the engine's thread, one call at a time. Implementations must not block and
// must not call the engine. Default methods do nothing, so that a test implements only
// what it looks at.
class EngineObserver {
 public:
  virtual ~EngineObserver() = default;

  virtual void OnStep(const StepObservation& /*step*/) {}

  // What one DP rank routed since its last such report: items per MoE layer and expert,
  // row by row, EngineOptions::num_expert_counts of them. Valid during the call.
  virtual void OnExpertCounts(std::span<const uint32_t> /*counts*/) {}

  // A token reached a request: `gap` since the token before it of the same choice; absent
  // for the first of a choice, and for one that came with the token before it.
  virtual void OnToken(std::optional<absl::Duration> /*gap*/) {}

  virtual void OnRequestFinished(const RequestObservation& /*request*/) {}

  // `count` sequences lost their blocks to others and will be recomputed.
  virtual void OnPreemptions(int64_t /*count*/) {}

  // A request was refused at Submit: kResourceExhausted (queue full), kUnavailable (not
  // ready).
  virtual void OnRejected(const absl::Status& /*reason*/) {}

  // The group answered its first step in `epoch`.
  virtual void OnGroupReady(uint64_t /*epoch*/) {}

  // The group of `epoch` is over.
  virtual void OnGroupFailed(uint64_t /*epoch*/, const absl::Status& /*reason*/) {}
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_REQUESTS_ENGINE_OBSERVER_H_
