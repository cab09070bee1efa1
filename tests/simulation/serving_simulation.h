// ServingSimulation: the real Scheduler and its block managers serve a trace in simulated
// time. It is the engine's loop, one step ahead, without threads: the clock moves to the
// next arrival or to the end of the next step, whose length a model gives.
//
// Step-time model: with `tokens` the tokens of a rank's plan (drafts included) and
// `context_sum` the sum of their contexts,
//
//   time = fixed + per_token * (tokens + context_sum / cost_tokens) + per_copy * copies
//
// of the slowest rank, since ranks meet in every layer. `fixed` is the time that reading
// the weights takes, `cost_tokens` the context at which attention costs a token as much
// as all else does; a copy moves a block to or from main memory. The defaults are of the
// order of one node of accelerators that serves a large sparse model; only ratios of
// simulated times are ever compared.
//
// After every step it checks: the scheduler's own books; each block of a sequence holds
// its tokens and its tenant's (CountingWorker); no quota is exceeded; tokens come in
// order, each once; nothing is answered after its end. At the end: every request ended
// once, those with a deadline by it, and all blocks are free again. A run is a pure
// function of its options.
#ifndef TESSERA_TESTS_SIMULATION_SERVING_SIMULATION_H_
#define TESSERA_TESTS_SIMULATION_SERVING_SIMULATION_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "coordinator/scheduler/scheduler.h"
#include "tests/simulation/counting_worker.h"
#include "tests/simulation/serving_traces.h"

namespace tessera::testing {

struct StepTimeModel {
  absl::Duration fixed = absl::Milliseconds(8);
  absl::Duration per_token = absl::Microseconds(12);
  double cost_tokens = 65536;
  absl::Duration per_copy = absl::Microseconds(360);

  absl::Duration TimeOf(const RankWork& work) const {
    return fixed +
           per_token *
               (static_cast<double>(work.num_tokens) + work.context_sum / cost_tokens) +
           per_copy * work.num_copies;
  }
};

struct ServingOptions {
  coordinator::SchedulerOptions scheduler;
  TraceOptions trace;
  StepTimeModel time;
  int num_group_failures = 0;  // spread over the arrivals; the streams go on after them
  // Stops after so much simulated time, with requests left; zero: runs to the end.
  absl::Duration stop_after = absl::ZeroDuration();
  // The scheduler recounts its books after every so many steps: linear in all blocks.
  int64_t recount_every = 1;
};

struct TenantReport {
  int64_t refused = 0;
  std::vector<absl::Duration> first_times;  // arrival to first token
};

struct ServingReport {
  int64_t finished = 0;
  int64_t cancelled = 0;
  int64_t expired = 0;
  int64_t refused = 0;
  int64_t epochs = 0;
  int64_t turns = 0;
  int64_t steps = 0;
  int64_t tokens = 0;  // generated
  int64_t accepted_drafts = 0;
  absl::Duration simulated;
  absl::Duration longest_step;
  std::vector<absl::Duration> gaps;         // between tokens, but of the long prompt
  std::vector<absl::Duration> first_times;  // arrival to first token, likewise
  absl::Duration long_first_time;           // of the last long prompt
  std::vector<int64_t> rank_tokens;         // computed by each rank
  std::map<std::string, TenantReport> tenants;
  coordinator::SchedulerStats stats;
};

// The least value that so many of 100 values do not exceed; zero of none.
absl::Duration Percentile(std::vector<absl::Duration> values, double percent);

// External synchronisation.
class ServingSimulation {
 public:
  explicit ServingSimulation(const ServingOptions& options);

  // The first broken promise, or OK.
  absl::Status Run();

  const ServingReport& report() const { return report_; }

 private:
  struct Live {
    TraceRequest request;
    std::vector<int32_t> answer;
    absl::Time last_token = absl::InfinitePast();
  };
  struct StepInFlight {
    absl::Time end;
    std::vector<proto::StepResult> results;
  };

  void StartGroup();
  absl::Status TakeEvents();
  absl::Status Arrive(TraceRequest request);
  absl::Status ExpireDue();
  absl::Status PlanStep();
  absl::Status AcceptStep();
  absl::Status Recount() const;
  absl::Status TakeToken(const coordinator::AcceptedToken& token);
  void End(coordinator::SequenceId id);
  absl::Status CheckQuotas() const;
  absl::Status CheckEnd() const;
  int64_t MaxLength(const TraceRequest& request) const;

  const ServingOptions options_;
  std::mt19937_64 random_;
  std::unique_ptr<coordinator::Scheduler> scheduler_;
  std::vector<CountingWorker> workers_;
  std::multimap<absl::Time, TraceRequest> arrivals_;
  std::multimap<absl::Time, coordinator::SequenceId> cancels_;
  std::deque<absl::Time> failures_;
  std::map<coordinator::SequenceId, Live> live_;
  std::vector<uint64_t> tenant_of_;  // by sequence id, which is its sampling seed
  std::map<std::string, uint64_t> tenant_numbers_;
  std::deque<StepInFlight> in_flight_;
  absl::Time now_ = absl::UnixEpoch();
  absl::Time last_end_ = absl::UnixEpoch();
  uint64_t epoch_ = 1;
  int64_t num_arrived_ = 0;
  ServingReport report_;
};

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_SIMULATION_SERVING_SIMULATION_H_
