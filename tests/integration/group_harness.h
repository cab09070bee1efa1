// GroupHarness: a whole group of rank threads under the real scheduler, without doors:
// prompts in, tokens and the bits of every computed logit row out. What the same-bits
// tests and those of speculation compare.
#ifndef TESSERA_TESTS_INTEGRATION_GROUP_HARNESS_H_
#define TESSERA_TESTS_INTEGRATION_GROUP_HARNESS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"

#include "common/mutex.h"
#include "coordinator/scheduler/scheduler.h"
#include "kernels/local_devices.h"
#include "worker/service/rank_thread.h"

namespace tessera::testing {

// What one sequence computed.
struct SequenceOutput {
  std::vector<int32_t> tokens;                     // generated
  std::vector<proto::SampledToken> sampled;        // the same, with log-probabilities
  std::vector<proto::SampledToken> prompt_scores;  // if the sequence asks for them
  std::map<int64_t, uint64_t> logits_of_position;  // hash of the row's bits
  int64_t cached_tokens = 0;
};

struct HarnessOptions {
  cli::GroupShape shape;
  cli::RankOptions rank;
  kernels::LocalDevices* devices = nullptr;  // null: those of the rank's backend
  absl::Duration step_timeout = absl::Seconds(60);
  int64_t max_batched_tokens = 128;
  int64_t max_sequences = 32;
  bool prefix_caching = true;
  int64_t max_restores = 0;  // as SchedulerOptions
  absl::Duration max_disk_wait = absl::Seconds(20);
  int64_t num_prefill_ranks = 0;
  int64_t prefill_min_tokens = 0;
  // Whether the bits of logits are recorded; not with speculation, whose rows no plan
  // tells apart.
  bool record_logits = true;
};

// What the steps of a harness came to.
struct HarnessTotals {
  int64_t num_steps = 0;
  int64_t num_graph_steps = 0;  // launches of graphs, on all ranks; none while recording
  int64_t num_tokens = 0;       // that reached a sequence
  uint64_t preemptions = 0;
  uint64_t collective_bytes = 0;  // of the steps, over all DP ranks
  proto::StepCounters drafts;     // of drafts alone, over all DP ranks
};

// One test thread.
class GroupHarness {
 public:
  ~GroupHarness();

  static absl::StatusOr<std::unique_ptr<GroupHarness>> Create(
      const cli::LoadedModel& model, const HarnessOptions& options,
      const cli::EngramSourceFactory& engram);

  // Runs all prompts together, greedy, `num_tokens` each, planning one step ahead as
  // serving does.
  absl::StatusOr<std::vector<SequenceOutput>> Run(
      const std::vector<std::vector<int32_t>>& prompts, int64_t num_tokens);

  // Runs all of `specs` together likewise; their ids and arrival are filled in here, and
  // a tenant where there is none. A sequence ends at a stop token after its min_tokens,
  // as a request would.
  absl::StatusOr<std::vector<SequenceOutput>> Run(
      std::vector<coordinator::SequenceSpec> specs);

  // Begins a new epoch: slots, caches and the host tier start from nothing. No run is
  // under way.
  void StartEpoch() { scheduler_->StartEpoch(++epoch_); }

  const HarnessTotals& totals() const { return totals_; }
  coordinator::SchedulerStats stats() const { return scheduler_->stats(); }

 private:
  class LogitsSink;
  GroupHarness();

  absl::Status SubmitStep(const coordinator::PlannedStep& step);
  absl::StatusOr<std::vector<proto::StepResult>> WaitStep();
  // Takes a token into `outputs`; true if it is the last of its sequence.
  bool TakeToken(const coordinator::AcceptedToken& token,
                 const coordinator::SequenceSpec& spec, SequenceOutput* output);

  int64_t tp_size_ = 1;
  absl::Duration step_timeout_;
  std::vector<cli::AssembledRank> ranks_;
  std::vector<std::unique_ptr<LogitsSink>> sinks_;  // one per DP rank
  std::unique_ptr<coordinator::Scheduler> scheduler_;
  std::vector<std::unique_ptr<worker::RankThread>> threads_;  // destroyed first
  uint64_t next_id_ = 1;
  uint64_t epoch_ = 1;
  HarnessTotals totals_;
};

}  // namespace tessera::testing

#endif  // TESSERA_TESTS_INTEGRATION_GROUP_HARNESS_H_
