// EngineCore: the step loop without its thread: what happens between two looks at the
// inbox. It owns the scheduler and the live requests, keeps a group of ranks busy one
// step ahead, notices when the group dies and says when to form the next. EngineLoop
// drives it from a thread; tests drive it on a simulated clock.
//
// States of the group: down -> forming -> probing (the first real step) -> up -> down.
// Whatever fails leads to down, with a growing pause before the next attempt; a first
// group that cannot be formed for a reason that time does not heal is not tried again.
#ifndef TESSERA_COORDINATOR_SERVICE_ENGINE_CORE_H_
#define TESSERA_COORDINATOR_SERVICE_ENGINE_CORE_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "coordinator/requests/engine.h"
#include "coordinator/requests/engine_observer.h"
#include "coordinator/scheduler/scheduler.h"
#include "coordinator/service/expert_reports.h"
#include "coordinator/service/live_requests.h"
#include "coordinator/service/rank_group.h"
#include "model/tokenizer/tokenizer.h"

namespace tessera::coordinator {

struct EngineOptions {
  SchedulerOptions scheduler;
  int64_t tp = 1;
  // What a probe computes: any id of the vocabulary, and of the Engram map.
  int32_t probe_token = 0;
  absl::Duration step_timeout = absl::Seconds(10);
  // An idle group runs a probe so often.
  absl::Duration probe_interval = absl::Seconds(5);
  // Pause before a group is formed again; doubles with every failure in a row.
  absl::Duration reform_pause = absl::Milliseconds(100);
  absl::Duration reform_pause_max = absl::Seconds(5);
  uint64_t jitter_seed = 0;
  // How many counts of routed items the ranks keep, MoE layers times experts (0: none
  // that anybody wants), and how often each DP rank reports them.
  int64_t num_expert_counts = 0;
  absl::Duration expert_report_period = absl::Seconds(2);
};

// What other threads may know of the engine.
struct EngineSnapshot {
  bool group_up = false;  // a real step finished on every rank of the present group
  absl::Time last_step = absl::InfinitePast();  // when a step last finished on every rank
  std::string phase = "starting";
  absl::Status fatal;  // why no group will ever be formed; OK as long as one may
  uint64_t epoch = 0;
  SchedulerStats stats;
  absl::Duration finish_interval =
      absl::Seconds(1);  // smoothed time between two requests' ends
};

// External synchronisation: the engine's thread. What it borrows must outlive it.
class EngineCore {
 public:
  // kInvalidArgument as Scheduler::Create, or a tp or duration that cannot work.
  // `observer` may be null.
  static absl::StatusOr<std::unique_ptr<EngineCore>> Create(
      const EngineOptions& options, GroupProvider* provider,
      const model::Tokenizer* tokenizer, Clock* clock, EngineObserver* observer);

  // Takes a request; every answer goes to the sink.
  void Submit(ValidatedRequest request, std::shared_ptr<RequestSink> sink);
  void Cancel(const std::string& request_id);
  // As Scheduler::SetTenants; the caller has checked them.
  void SetTenants(std::span<const TenantPolicy> tenants, const TenantPolicy& others);
  void EndAll(const absl::Status& reason);

  // From `deadline` on, what is left ends with kUnavailable.
  void StartDrain(absl::Time deadline) { drain_deadline_ = deadline; }

  // The epoch to form a group for, once whenever one is due; answer with FormFinished.
  std::optional<uint64_t> TakeFormRequest();
  void FormFinished(uint64_t epoch, const absl::Status& status, RankExecutors executors);

  // One turn: ends what is due, plans, waits for at most one step. False: there was
  // nothing to do.
  bool Advance();

  // When Advance has something to do at the latest if no call comes before.
  absl::Time NextWakeup() const;

  // Aborts the group; called once at the end.
  void AbortGroup(const absl::Status& reason);

  const EngineSnapshot& snapshot() const { return snapshot_; }
  int64_t num_requests() const { return live_.size(); }
  // The live requests, as EngineReport has them.
  std::vector<RequestReport> ReportRequests() const { return live_.Report(); }
  // Ids of requests that ended since the last call.
  std::vector<std::string> TakeEnded();

 private:
  enum class GroupState { kDown, kForming, kProbing, kUp };

  struct StepInFlight {
    absl::Time submitted;
    absl::Duration plan_time;
    int64_t num_tokens = 0;
    int64_t num_prefill_tokens = 0;
    int64_t num_sequences = 0;
    bool probe = false;
    uint64_t step = 0;
    std::vector<size_t> reports;  // DP ranks that it asks for expert counts
    // Whose masks the ranks wait for; empty once these were sent.
    std::vector<std::vector<MaskedWork>> masked;
  };

  EngineCore(const EngineOptions& options, std::unique_ptr<Scheduler> scheduler,
             GroupProvider* provider, const model::Tokenizer* tokenizer, Clock* clock,
             EngineObserver* observer);

  void EndDue(absl::Time now);
  // One turn of a live group. An error ends the group.
  absl::StatusOr<bool> Turn();
  absl::Status PlanStep();
  absl::Status RunProbe();
  absl::Status SubmitStep(PlannedStep step, absl::Time started, bool probe);
  absl::Status FinishStep();
  // Sends the masks of the oldest step in flight: the tokens before it are all known.
  absl::Status SendMasks();
  void Observe(const StepInFlight& step, absl::Duration accept_time,
               const std::vector<proto::StepCounters>& counters, int64_t num_accepted);
  void FailGroup(const absl::Status& reason);
  void EndFailedRequests();
  void PauseBeforeForming();
  void UpdateSnapshot();

  const EngineOptions options_;
  const std::unique_ptr<Scheduler> scheduler_;
  GroupProvider* const provider_;
  Clock* const clock_;
  EngineObserver no_observer_;
  EngineObserver* const observer_;
  LiveRequests live_;
  ExpertReports expert_reports_;

  GroupState state_ = GroupState::kDown;
  std::unique_ptr<RankGroup> group_;
  bool was_up_ = false;  // a group was, ever
  // Why the last group failed, while its requests wait for their end: first the snapshot
  // has to say that the group is down.
  std::optional<absl::Status> unreported_failure_;
  std::deque<StepInFlight> in_flight_;
  uint64_t epoch_ = 1;  // of the present group, or of the next one while there is none
  int64_t failures_in_row_ = 0;
  absl::Time next_form_ = absl::InfinitePast();
  absl::Time drain_deadline_ = absl::InfiniteFuture();
  absl::Time last_end_ = absl::InfinitePast();
  uint64_t preemptions_seen_ = 0;
  EngineSnapshot snapshot_;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_SERVICE_ENGINE_CORE_H_
