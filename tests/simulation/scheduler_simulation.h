// SchedulerSimulation: one seeded run of the real scheduler against stub workers: random
// options, arrivals, shared prefixes, cancels, stops, deadlines, tiny block pools and new
// epochs. After every tick it checks the promises of scheduler.h; a run is a pure
// function of its seed.
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
  struct Request {
    coordinator::SequenceSpec spec;
    std::vector<int32_t> generated;
  };

  // One rank as its plans describe it, independent of the scheduler's own books.
  struct RankView {
    std::map<uint32_t, std::vector<uint32_t>> tables;  // slot -> blocks
    std::map<uint32_t, std::string> tenant_of_block;   // of its last writer
    std::deque<std::set<uint32_t>> blocks_of_plans_in_flight;
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
  absl::Status CheckPlan(size_t rank, const proto::StepPlan& plan);
  absl::Status CheckNewBlocks(size_t rank, const std::vector<uint32_t>& blocks,
                              size_t begin, const std::string& tenant);
  absl::Status AcceptStep();
  absl::Status TakeToken(const coordinator::AcceptedToken& token);
  absl::Status CheckDrained() const;

  std::mt19937_64 random_;
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
