// ModelBench: times prefills and decode steps of a real runner, in this process and
// without a coordinator.
//
// It stands under `tessera bench decode` and `prefill`, which choose the points and print
// what comes out. One rank; every run is an epoch of its own, so runs are alike whatever
// came before.
#ifndef TESSERA_CLI_BENCH_MODEL_BENCH_H_
#define TESSERA_CLI_BENCH_MODEL_BENCH_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"

#include "common/clock.h"
#include "proto/step_plan.h"

namespace tessera::cli {

// Which tokens a run is of: any, or one again and again.
enum class TokenChoice { kRandom, kRepeated };

// `batch` sequences with prompts of `prompt_tokens` made-up tokens, then `steps` decode
// steps of all of them together; without steps, a prefill.
struct BenchPoint {
  int64_t batch = 1;
  int64_t prompt_tokens = 0;
  int64_t steps = 0;
  TokenChoice choice = TokenChoice::kRandom;
  uint32_t seed = 1;  // the same tokens for the same seed
  // Decode steps take made-up tokens, too, in place of the ones that were sampled: those
  // of a model without training soon repeat.
  bool made_up_steps = false;
  // The prompt is put together from pieces that are computed apart, each as if it began a
  // sequence: what decode steps read is all there, in its size and place, after a time
  // that grows with the length alone. What the rows hold is not what attention over the
  // whole would have put there, and nothing is timed but the steps, of made-up tokens.
  bool stitched = false;
};

struct PointTime {
  double prefill_seconds = 0;  // of all prompts
  double step_seconds = 0;     // of one decode step, on average
};

// A stretch of a decode step, named after where it ends.
struct StageTime {
  std::string name;
  double seconds = 0;  // of one step, all layers together
};

struct StepParts {
  // Distinct experts that a step reads in a layer, on average; 0 without experts.
  double experts_per_layer = 0;
  // In the order in which a step first comes to their ends.
  std::vector<StageTime> stages;
};

// Owns the rank. External synchronisation.
class ModelBench {
 public:
  // `options` are of one rank; caches and slots are made for the largest of `points`.
  // `model` and `clock` must outlive it. Rows come from `engram`; without one from this
  // process's memory. Errors of AssembleLocalGroup.
  static absl::StatusOr<std::unique_ptr<ModelBench>> Create(
      const LoadedModel& model, RankOptions options,
      const std::vector<BenchPoint>& points, Clock* clock,
      EngramSourceFactory engram = nullptr);

  // Blocks for as long as the point takes; calls `between` after the prompts and before
  // the steps. Errors of ModelRunner::Execute.
  absl::StatusOr<PointTime> Run(const BenchPoint& point,
                                const std::function<void()>& between = nullptr);

  // The same run, observed: what decode steps read of experts and where their time goes.
  absl::StatusOr<StepParts> Observe(const BenchPoint& point);

  const kernels::KernelBackend& backend() const { return *ranks_.front().backend; }
  const RankOptions& options() const { return options_; }

 private:
  ModelBench(const LoadedModel& model, const RankOptions& options, Clock* clock)
      : model_(model), options_(options), clock_(clock) {}

  absl::Status Step(proto::StepPlan plan);
  int32_t NextToken(const BenchPoint& point);
  absl::Status Prefill(const BenchPoint& point);
  absl::Status PrefillSequence(const BenchPoint& point, proto::SlotAdmission admission);
  absl::Status Stitch(const BenchPoint& point, proto::SlotAdmission admission);
  absl::Status Decode(const BenchPoint& point);

  const LoadedModel& model_;
  const RankOptions options_;
  Clock* const clock_;
  std::vector<AssembledRank> ranks_;
  uint64_t epoch_ = 0;
  uint64_t step_ = 0;
  std::mt19937 random_;
  std::function<void()> after_step_;  // of Decode, while it is observed
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_BENCH_MODEL_BENCH_H_
