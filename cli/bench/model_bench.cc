#include "cli/bench/model_bench.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/ranks/rank_assembly.h"

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

// What stands between two points that a step tells a trace of. Of a layer: everything
// before the attention's choice of rows is known, the attention and what leads to the
// router's choice, and the experts with the way back into the residual.
std::string StageBefore(std::string_view what) {
  if (what == "select") {
    return "projections, indexer";
  }
  if (what == "router.ids") {
    return "attention, router";
  }
  if (what == "hidden") {
    return "experts, residual";
  }
  return "other";
}

// Counts the distinct experts that routers choose, and the time between points.
class StepObserver final : public worker::TraceSink {
 public:
  explicit StepObserver(Clock* clock) : clock_(clock), last_(clock->Now()) {}

  void Record(std::string_view what, int64_t, kernels::TensorView rows) override {
    AddStage(StageBefore(what));
    if (what == "router.ids" && rows.dim(0) > 0) {
      const auto* ids = rows.as<int32_t>();
      const std::set<int32_t> distinct(ids, ids + rows.num_elements());
      experts_ += static_cast<int64_t>(distinct.size());
      layers_ += 1;
    }
    last_ = clock_->Now();
  }

  StepParts Parts(int64_t steps) {
    StepParts parts;
    if (layers_ > 0) {
      parts.experts_per_layer =
          static_cast<double>(experts_) / static_cast<double>(layers_);
    }
    for (const auto& [name, time] : stages_) {
      parts.stages.push_back(
          {.name = name,
           .seconds = absl::ToDoubleSeconds(time) / static_cast<double>(steps)});
    }
    return parts;
  }

  // The stretch up to now.
  void AddStage(const std::string& name) {
    auto found =
        std::ranges::find(stages_, name, &std::pair<std::string, absl::Duration>::first);
    if (found == stages_.end()) {
      found = stages_.insert(stages_.end(), {name, absl::ZeroDuration()});
    }
    found->second += clock_->Now() - last_;
    last_ = clock_->Now();
  }

 private:
  Clock* const clock_;
  absl::Time last_;
  std::vector<std::pair<std::string, absl::Duration>> stages_;
  int64_t experts_ = 0;
  int64_t layers_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ModelBench>> ModelBench::Create(
    const LoadedModel& model, RankOptions options, const std::vector<BenchPoint>& points,
    Clock* clock, EngramSourceFactory engram) {
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
  if (!engram) {
    TESSERA_ASSIGN_OR_RETURN(engram, ResidentEngram(model, clock));
  }
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

int32_t ModelBench::NextToken(const BenchPoint& point) {
  return point.choice == TokenChoice::kRepeated
             ? static_cast<int32_t>(point.seed %
                                    static_cast<uint64_t>(model_.config.vocab_size))
             : static_cast<int32_t>(random_() %
                                    static_cast<uint64_t>(model_.config.vocab_size));
}

absl::Status ModelBench::PrefillSequence(const BenchPoint& point,
                                         proto::SlotAdmission admission) {
  const auto length = static_cast<int64_t>(admission.prompt_length);
  const uint32_t slot = admission.slot;
  for (int64_t begin = 0; begin < length; begin += options_.runner.max_tokens) {
    const int64_t end = std::min(begin + options_.runner.max_tokens, length);
    proto::StepPlan plan;
    if (begin == 0) {
      plan.admissions.push_back(std::move(admission));
    }
    proto::SlotWork work;
    work.slot = slot;
    work.sample = end == length;
    for (int64_t i = begin; i < end; ++i) {
      work.tokens.push_back(NextToken(point));
    }
    plan.work.push_back(std::move(work));
    TESSERA_RETURN_IF_ERROR(Step(std::move(plan)));
  }
  return absl::OkStatus();
}

absl::Status ModelBench::Stitch(const BenchPoint& point, proto::SlotAdmission admission) {
  const int64_t block_size = options_.runner.block_size;
  const int64_t piece_blocks = std::max<int64_t>(
      1, std::min(options_.runner.max_tokens, point.prompt_tokens) / block_size);
  // The last piece ends in the block that the steps go on in.
  for (int64_t first = 0; first * block_size < point.prompt_tokens;
       first += piece_blocks) {
    proto::SlotAdmission piece = admission;
    const int64_t tokens =
        std::min(piece_blocks * block_size, point.prompt_tokens - first * block_size);
    piece.prompt_length = static_cast<uint32_t>(tokens);
    piece.blocks.erase(piece.blocks.begin(), piece.blocks.begin() + first);
    if (model_.config.tail_tokens() > 0) {
      piece.tail_blocks = piece.blocks;
    }
    TESSERA_RETURN_IF_ERROR(PrefillSequence(point, std::move(piece)));
    proto::StepPlan release;
    release.releases = {admission.slot};
    TESSERA_RETURN_IF_ERROR(Step(std::move(release)));
  }
  for (int64_t i = 0; i < point.prompt_tokens; ++i) {
    admission.history.push_back(NextToken(point));
  }
  proto::StepPlan plan;
  plan.admissions.push_back(std::move(admission));
  return Step(std::move(plan));
}

absl::Status ModelBench::Prefill(const BenchPoint& point) {
  ++epoch_;
  step_ = 0;
  // Alike in every run, so that experts counted in one are those of all.
  random_.seed(point.seed);
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
    TESSERA_RETURN_IF_ERROR(point.stitched
                                ? Stitch(point, std::move(admission))
                                : PrefillSequence(point, std::move(admission)));
  }
  return absl::OkStatus();
}

absl::Status ModelBench::Decode(const BenchPoint& point) {
  proto::StepPlan plan;
  for (int64_t sequence = 0; sequence < point.batch; ++sequence) {
    plan.work.push_back(
        {.slot = static_cast<uint32_t>(sequence), .from_sample = true, .sample = true});
  }
  plan.decode_rows = static_cast<uint32_t>(point.batch);
  for (int64_t step = 0; step < point.steps; ++step) {
    if (point.made_up_steps || point.stitched) {
      for (proto::SlotWork& work : plan.work) {
        work.from_sample = false;
        work.tokens = {NextToken(point)};
      }
    }
    TESSERA_RETURN_IF_ERROR(Step(plan));
    if (after_step_) {
      after_step_();
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<PointTime> ModelBench::Run(const BenchPoint& point,
                                          const std::function<void()>& between) {
  PointTime time;
  const absl::Time begin = clock_->Now();
  TESSERA_RETURN_IF_ERROR(Prefill(point));
  const absl::Time middle = clock_->Now();
  if (between) {
    between();
  }
  TESSERA_RETURN_IF_ERROR(Decode(point));
  time.prefill_seconds = absl::ToDoubleSeconds(middle - begin);
  if (point.steps > 0) {
    time.step_seconds =
        absl::ToDoubleSeconds(clock_->Now() - middle) / static_cast<double>(point.steps);
  }
  return time;
}

absl::StatusOr<StepParts> ModelBench::Observe(const BenchPoint& point) {
  TESSERA_RETURN_IF_ERROR(Prefill(point));
  StepObserver observer(clock_);
  worker::ModelRunner& runner = *ranks_.front().runner;
  runner.SetTrace(&observer, false);
  after_step_ = [&observer] { observer.AddStage("head, sampler, next inputs"); };
  const absl::Status status = Decode(point);
  after_step_ = nullptr;
  runner.SetTrace(nullptr, false);
  TESSERA_RETURN_IF_ERROR(status);
  return observer.Parts(point.steps);
}

}  // namespace tessera::cli
