// ModelBench: times prefills and decode steps of a real runner, in this process and
// without a coordinator.
//
// It stands under `tessera bench decode` and `prefill`, which choose the points and print
// what comes out. One rank; every run is an epoch of its own, so runs are alike whatever
// came before.
#ifndef TESSERA_CLI_BENCH_MODEL_BENCH_H_
#define TESSERA_CLI_BENCH_MODEL_BENCH_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/loaded_model.h"
#include "cli/rank_assembly.h"

#include "common/clock.h"
#include "proto/step_plan.h"

namespace tessera::cli {

// `batch` sequences with prompts of `prompt_tokens` made-up tokens, then `steps` decode
// steps of all of them together; without steps, a prefill.
struct BenchPoint {
  int64_t batch = 1;
  int64_t prompt_tokens = 0;
  int64_t steps = 0;
};

struct PointTime {
  double prefill_seconds = 0;  // of all prompts
  double step_seconds = 0;     // of one decode step, on average
};

// Owns the rank. External synchronisation.
class ModelBench {
 public:
  // `options` are of one rank; caches and slots are made for the largest of `points`.
  // `model` and `clock` must outlive it. Errors of AssembleLocalGroup.
  static absl::StatusOr<std::unique_ptr<ModelBench>> Create(
      const LoadedModel& model, RankOptions options,
      const std::vector<BenchPoint>& points, Clock* clock);

  // Blocks for as long as the point takes. Errors of ModelRunner::Execute.
  absl::StatusOr<PointTime> Run(const BenchPoint& point);

  // The same run, counted rather than timed: distinct experts that a decode step reads in
  // a layer, on average; 0 for a model without experts.
  absl::StatusOr<double> ExpertsPerLayer(const BenchPoint& point);

  const kernels::KernelBackend& backend() const { return *ranks_.front().backend; }
  const RankOptions& options() const { return options_; }

 private:
  ModelBench(const LoadedModel& model, const RankOptions& options, Clock* clock)
      : model_(model), options_(options), clock_(clock) {}

  absl::Status Step(proto::StepPlan plan);
  absl::Status Prefill(const BenchPoint& point);
  absl::Status Decode(const BenchPoint& point);

  const LoadedModel& model_;
  const RankOptions options_;
  Clock* const clock_;
  std::vector<AssembledRank> ranks_;
  uint64_t epoch_ = 0;
  uint64_t step_ = 0;
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_BENCH_MODEL_BENCH_H_
