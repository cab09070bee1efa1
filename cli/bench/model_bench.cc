#include "cli/bench/model_bench.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/rank_assembly.h"

#include "common/clock.h"
#include "common/status_macros.h"
#include "kernels/tensor_view.h"
#include "proto/step_plan.h"
#include "worker/layers/step_context.h"
#include "worker/runner/model_runner.h"

namespace tessera::cli {
namespace {

// Of one sequence: its prompt and the tokens of its steps.
int64_t BlocksPerSequence(const BenchPoint& point, int64_t block_size) {
  return (point.prompt_tokens + point.steps + block_size) / block_size;
}

std::vector<uint32_t> Blocks(int64_t first, int64_t count) {
  std::vector<uint32_t> blocks;
  for (int64_t i = 0; i < count; ++i) {
    blocks.push_back(static_cast<uint32_t>(first + i));
  }
  return blocks;
}

// Counts the distinct experts that routers choose.
class ExpertCounter final : public worker::TraceSink {
 public:
  void Record(std::string_view what, int64_t, kernels::TensorView rows) override {
    if (what != "router.ids" || rows.dim(0) == 0) {
      return;
    }
    const auto* ids = rows.as<int32_t>();
    const std::set<int32_t> distinct(ids, ids + rows.num_elements());
    experts_ += static_cast<int64_t>(distinct.size());
    layers_ += 1;
  }
  double PerLayer() const {
    return layers_ == 0 ? 0
                        : static_cast<double>(experts_) / static_cast<double>(layers_);
  }

 private:
  int64_t experts_ = 0;
  int64_t layers_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ModelBench>> ModelBench::Create(
    const LoadedModel& model, RankOptions options, const std::vector<BenchPoint>& points,
    Clock* clock) {
  worker::RunnerOptions& runner = options.runner;
  runner.num_blocks = 0;
  for (const BenchPoint& point : points) {
    runner.num_blocks = std::max(
        runner.num_blocks, point.batch * BlocksPerSequence(point, runner.block_size));
    runner.max_slots = std::max(runner.max_slots, point.batch);
    runner.max_tokens = std::max(runner.max_tokens, point.batch);
  }
  runner.num_tail_blocks = model.config.tail_tokens() > 0 ? runner.num_blocks : 0;
  auto bench = std::unique_ptr<ModelBench>(new ModelBench(model, options, clock));
  TESSERA_ASSIGN_OR_RETURN(const EngramSourceFactory engram,
                           ResidentEngram(model, clock));
  TESSERA_ASSIGN_OR_RETURN(
      bench->ranks_, AssembleLocalGroup(model, GroupShape{}, options, engram, clock));
  return bench;
}

absl::Status ModelBench::Step(proto::StepPlan plan) {
  plan.epoch = epoch_;
  plan.step = ++step_;
  plan.placement_version = options_.placement_version;
  return ranks_.front().runner->Execute(plan).status();
}

absl::Status ModelBench::Prefill(const BenchPoint& point) {
  ++epoch_;
  step_ = 0;
  // Alike in every run, so that experts counted in one are those of all.
  std::mt19937 random(1);
  const int64_t blocks = BlocksPerSequence(point, options_.runner.block_size);
  for (int64_t sequence = 0; sequence < point.batch; ++sequence) {
    proto::SlotAdmission admission;
    admission.slot = static_cast<uint32_t>(sequence);
    admission.prompt_length = static_cast<uint32_t>(point.prompt_tokens);
    admission.sampling.temperature = 0;
    admission.blocks = Blocks(sequence * blocks, blocks);
    if (model_.config.tail_tokens() > 0) {
      admission.tail_blocks = admission.blocks;
    }
    for (int64_t begin = 0; begin < point.prompt_tokens;
         begin += options_.runner.max_tokens) {
      const int64_t end =
          std::min(begin + options_.runner.max_tokens, point.prompt_tokens);
      proto::StepPlan plan;
      if (begin == 0) {
        plan.admissions.push_back(admission);
      }
      proto::SlotWork work;
      work.slot = admission.slot;
      work.sample = end == point.prompt_tokens;
      for (int64_t i = begin; i < end; ++i) {
        work.tokens.push_back(static_cast<int32_t>(
            random() % static_cast<uint64_t>(model_.config.vocab_size)));
      }
      plan.work.push_back(std::move(work));
      TESSERA_RETURN_IF_ERROR(Step(std::move(plan)));
    }
  }
  return absl::OkStatus();
}

absl::Status ModelBench::Decode(const BenchPoint& point) {
  proto::StepPlan plan;
  for (int64_t sequence = 0; sequence < point.batch; ++sequence) {
    plan.work.push_back(
        {.slot = static_cast<uint32_t>(sequence), .from_sample = true, .sample = true});
  }
  for (int64_t step = 0; step < point.steps; ++step) {
    TESSERA_RETURN_IF_ERROR(Step(plan));
  }
  return absl::OkStatus();
}

absl::StatusOr<PointTime> ModelBench::Run(const BenchPoint& point) {
  PointTime time;
  const absl::Time begin = clock_->Now();
  TESSERA_RETURN_IF_ERROR(Prefill(point));
  const absl::Time middle = clock_->Now();
  TESSERA_RETURN_IF_ERROR(Decode(point));
  time.prefill_seconds = absl::ToDoubleSeconds(middle - begin);
  if (point.steps > 0) {
    time.step_seconds =
        absl::ToDoubleSeconds(clock_->Now() - middle) / static_cast<double>(point.steps);
  }
  return time;
}

absl::StatusOr<double> ModelBench::ExpertsPerLayer(const BenchPoint& point) {
  TESSERA_RETURN_IF_ERROR(Prefill(point));
  ExpertCounter counter;
  worker::ModelRunner& runner = *ranks_.front().runner;
  runner.SetTrace(&counter, false);
  const absl::Status status = Decode(point);
  runner.SetTrace(nullptr, false);
  TESSERA_RETURN_IF_ERROR(status);
  return counter.PerLayer();
}

}  // namespace tessera::cli
