// SchedulerSimulation: one seeded run of the real scheduler against stub workers: random
// options, arrivals, shared prefixes, cancels, stops, deadlines, tiny block and tail
// block pools and new epochs. After every tick it checks the promises of scheduler.h; a
// run is a pure function of its seed.
#ifndef TESSERA_TESTS_SIMULATION_SCHEDULER_SIMULATION_H_
#define TESSERA_TESTS_SIMULATION_SCHEDULER_SIMULATION_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "coordinator/scheduler/scheduler.h"
#include "tests/simulation/rank_view.h"
#include "tests/testing/stub_worker.h"

namespace tessera::testing {

// What a run went through, so that a test can tell that the interesting things happened.
struct SimulationCoverage {
  int64_t tokens = 0;
  int64_t finished = 0;
  int64_t cancelled = 0;
  int64_t expired = 0;
  int64_t epochs = 0;
  int64_t probes = 0;
  int64_t steps_ahead = 0;
  int64_t dropped_tokens = 0;  // sampled for a sequence that had ended
  uint64_t preemptions = 0;
  uint64_t prefix_hit_tokens = 0;
  // Of models that keep tail blocks:
  int64_t tail_runs = 0;
  int64_t tail_hits = 0;    // admissions whose tail table begins after the first block
  int64_t tail_chunks = 0;  // of prompts, after their first
  uint64_t tail_preemptions = 0;
  uint64_t shortened_tokens = 0;
  // Of the host tier:
  int64_t host_runs = 0;
  coordinator::TierTotals tiers;
  int64_t disk_runs = 0;
  // Of prefill ranks:
  int64_t role_runs = 0;
  coordinator::HandOverTotals hand_overs;
  // Of speculation:
  int64_t planned_drafts = 0;
  int64_t accepted_drafts = 0;
  int64_t tokens_after_a_stop = 0;  // of the same step
  // Of configured tenants:
  int64_t tenant_runs = 0;
  int64_t over_quota = 0;  // sequences that no quota could ever let run
  int64_t near_quota = 0;  // plans in which a tenant ran more than half of its quota
};

// External synchronisation.
class SchedulerSimulation {
 public:
  explicit SchedulerSimulation(uint64_t seed);

  // Runs `num_ticks` with arrivals, then until everything ended. The first broken
  // promise, or OK.
  absl::Status Run(int num_ticks);

  const SimulationCoverage& coverage() const { return coverage_; }

 private:
  using TenantPolicy = coordinator::TenantPolicy;

  struct Request {
    coordinator::SequenceSpec spec;
    std::vector<int32_t> generated;
  };

  uint64_t Draw(uint64_t bound) { return random_() % bound; }
  bool Chance(int percent) { return Draw(100) < static_cast<uint64_t>(percent); }
  void ChooseOptions();
  void StartGroup();
  coordinator::SequenceSpec DrawSpec();
  absl::Status Arrive();
  void CancelOne();
  absl::Status ExpireDue();
  absl::Status Tick(bool arrivals);
  absl::Status PlanStep();
  // Of a live sequence or a probe; null for any other.
  const std::string* TenantOf(coordinator::SequenceId id) const;
  // Adds what the views met to the coverage, before they are made anew or at the end.
  void CountViews();
  void ChooseTail();
  void ChooseHostTier();
  void ChooseDiskTier();
  void ChooseRoles();
  void ChooseTenants();
  // null: nobody configured it.
  const TenantPolicy* PolicyOf(const std::string& tenant) const;
  int64_t MaxLength(const coordinator::SequenceSpec& spec) const;
  // Whether the queue had a reason to refuse a sequence of `tenant`.
  absl::Status CheckRefusal(const std::string& tenant) const;
  // What runs of each tenant by the plans, against its quota.
  absl::Status CheckQuotas();
  absl::Status AcceptStep();
  absl::Status TakeToken(const coordinator::AcceptedToken& token);
  absl::Status CheckDrained() const;

  std::mt19937_64 random_;
  const std::string tenant_of_probes_;
  coordinator::SchedulerOptions options_;
  std::unique_ptr<coordinator::Scheduler> scheduler_;
  std::vector<StubWorker> workers_;
  std::vector<RankView> views_;
  std::deque<std::vector<proto::StepResult>> results_;
  std::vector<std::vector<int32_t>> shared_prompts_;
  std::map<coordinator::SequenceId, Request> live_;
  std::set<coordinator::SequenceId> ended_;
  coordinator::SequenceId next_id_ = 1;
  uint64_t epoch_ = 1;
  absl::Time now_ = absl::UnixEpoch();
  SimulationCoverage coverage_;
};

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_SIMULATION_SCHEDULER_SIMULATION_H_
