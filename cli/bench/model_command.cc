#include "cli/bench/model_command.h"

#include <cstdint>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/bench/figures.h"
#include "cli/bench/machine_limits.h"
#include "cli/bench/model_bench.h"
#include "cli/bench/model_bench_options.h"
#include "cli/bench/step_cost.h"
#include "cli/load_progress.h"
#include "cli/loaded_model.h"
#include "cli/model_options.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "common/build_info.h"
#include "common/clock.h"
#include "common/option_table.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/kernel_backend.h"
#include "model/tensors/tensor_inventory.h"

namespace tessera::cli {
namespace {

constexpr double kGiga = 1e9;

// A point, what it must at least do, and how long it took.
struct Measured {
  BenchPoint point;
  double experts_per_layer = 0;
  double weight_bytes = 0;  // those of experts among them
  double cached_bytes = 0;
  double multiply_adds = 0;  // those of attention among them
  double attention_multiply_adds = 0;
  std::vector<StageTime> stages;  // of a decode step, in a run of its own
  Spread seconds;                 // of a decode step, or of a whole prefill
  Spread share;                   // of the limit of the same round
};

struct Limits {
  Spread read_bytes;
  Spread multiply_adds;
};

Arithmetic ArithmeticOf(const RankOptions& options) {
  return options.numerics == "f32" ? Arithmetic::kF32 : Arithmetic::kInt8;
}

// What a step reads, or a prefill multiplies, by the inventory and the router's choices.
absl::Status FillCost(ModelPhase phase, const LoadedModel& model, ModelBench& bench,
                      Measured* measured) {
  const BenchPoint& point = measured->point;
  const int64_t steps = phase == ModelPhase::kDecode ? point.steps : 0;
  const WeightCost cost = WeightCostOf(
      model.config, model::FindEngramRowFormat(model.config, *model.checkpoint),
      point.prompt_tokens + steps, bench.options().numerics == "w8a8-g32");
  if (phase == ModelPhase::kPrefill) {
    measured->attention_multiply_adds =
        static_cast<double>(AttentionMultiplyAdds(model.config, point.prompt_tokens));
    measured->multiply_adds =
        measured->attention_multiply_adds +
        static_cast<double>(PrefillMultiplyAdds(cost, model.config, point.prompt_tokens));
    // As a warm-up.
    return bench.Run(point).status();
  }
  TESSERA_ASSIGN_OR_RETURN(const StepParts parts, bench.Observe(point));
  measured->experts_per_layer = parts.experts_per_layer;
  measured->stages = parts.stages;
  measured->weight_bytes =
      static_cast<double>(cost.always_bytes) + measured->experts_per_layer *
                                                   static_cast<double>(cost.moe_layers) *
                                                   static_cast<double>(cost.expert_bytes);
  const worker::RunnerOptions& runner = bench.options().runner;
  // Of the step in the middle.
  measured->cached_bytes = static_cast<double>(
      point.batch * CachedBytes(model.config,
                                {.activations = bench.options().dtype,
                                 .dtype = runner.kv_cache_dtype,
                                 .block_size = runner.block_size},
                                point.prompt_tokens + point.steps / 2));
  return absl::OkStatus();
}

absl::Status Round(ModelPhase phase, ModelBench& bench, MachineLimits& machine,
                   Limits* limits, std::vector<Measured>* points) {
  limits->read_bytes.rounds.push_back(machine.ReadBytesPerSecond());
  limits->multiply_adds.rounds.push_back(
      machine.MultiplyAddsPerSecond(ArithmeticOf(bench.options())));
  for (Measured& measured : *points) {
    TESSERA_ASSIGN_OR_RETURN(const PointTime time, bench.Run(measured.point));
    if (phase == ModelPhase::kDecode) {
      measured.seconds.rounds.push_back(time.step_seconds);
      measured.share.rounds.push_back((measured.weight_bytes + measured.cached_bytes) /
                                      time.step_seconds /
                                      limits->read_bytes.rounds.back());
    } else {
      measured.seconds.rounds.push_back(time.prefill_seconds);
      measured.share.rounds.push_back(measured.multiply_adds / time.prefill_seconds /
                                      limits->multiply_adds.rounds.back());
    }
  }
  return absl::OkStatus();
}

double TokensPerSecond(ModelPhase phase, const Measured& measured) {
  const int64_t tokens =
      phase == ModelPhase::kDecode ? measured.point.batch : measured.point.prompt_tokens;
  return static_cast<double>(tokens) / measured.seconds.Median();
}

void PrintPoint(ModelPhase phase, const Measured& measured) {
  const double seconds = measured.seconds.Median();
  const std::string time =
      fmt::format("{:>10.3f} ms ({:.3f} to {:.3f})", seconds * 1e3,
                  measured.seconds.Min() * 1e3, measured.seconds.Max() * 1e3);
  if (phase == ModelPhase::kDecode) {
    const double bytes = measured.weight_bytes + measured.cached_bytes;
    std::cout << fmt::format(
        "batch {:>4} after {:>6} tokens {} a step {:>9.1f} tokens/s {:>9.1f} MB a step "
        "({:.1f} experts a layer) {:>7.2f} GB/s {:>5.1f} %\n",
        measured.point.batch, measured.point.prompt_tokens, time,
        TokensPerSecond(phase, measured), bytes / 1e6, measured.experts_per_layer,
        bytes / seconds / kGiga, 100 * measured.share.Median());
    return;
  }
  std::cout << fmt::format(
      "prompt {:>6} tokens {} {:>9.1f} tokens/s {:>9.2f} GFLOP {:>8.1f} GFLOP/s {:>5.1f} "
      "%\n",
      measured.point.prompt_tokens, time, TokensPerSecond(phase, measured),
      2 * measured.multiply_adds / kGiga, 2 * measured.multiply_adds / seconds / kGiga,
      100 * measured.share.Median());
}

nlohmann::json PointJson(ModelPhase phase, const Measured& measured) {
  nlohmann::json json = {{"prompt_tokens", measured.point.prompt_tokens},
                         {"tokens_per_s", TokensPerSecond(phase, measured)},
                         {"seconds", measured.seconds.Json()},
                         {"share", measured.share.Json()}};
  if (phase == ModelPhase::kDecode) {
    json["batch_size"] = measured.point.batch;
    json["steps"] = measured.point.steps;
    json["experts_per_layer"] = measured.experts_per_layer;
    json["weight_bytes"] = measured.weight_bytes;
    json["cached_bytes"] = measured.cached_bytes;
    for (const StageTime& stage : measured.stages) {
      json["stages"][stage.name] = stage.seconds;
    }
  } else {
    json["flops"] = 2 * measured.multiply_adds;
    json["attention_flops"] = 2 * measured.attention_multiply_adds;
  }
  return json;
}

nlohmann::json ResultJson(ModelPhase phase, const ModelBenchOptions& options,
                          const ModelBench& bench, const Limits& limits,
                          const std::vector<Measured>& points) {
  const Arithmetic arithmetic = ArithmeticOf(bench.options());
  nlohmann::json json = {{"command", phase == ModelPhase::kDecode ? "decode" : "prefill"},
                         {"version", Version()},
                         {"model", options.model.model},
                         {"overrides", options.model.load.overrides},
                         {"numerics", bench.backend().numerics_id()},
                         {"isa", bench.backend().isa()},
                         {"processor", ProcessorName()},
                         {"threads", bench.options().num_threads},
                         {"rounds", options.rounds},
                         {"read_bytes_per_s", limits.read_bytes.Json()},
                         {"multiply_adds_per_s", limits.multiply_adds.Json()},
                         {"multiply_adds_isa", MachineLimits::InstructionSet(arithmetic)},
                         {"points", nlohmann::json::array()}};
  for (const Measured& measured : points) {
    json["points"].push_back(PointJson(phase, measured));
  }
  return json;
}

void PrintLimits(const ModelBench& bench, const Limits& limits) {
  std::cout << fmt::format(
      "{}, {} threads, {} ({}); reads {:.2f} GB/s ({:.2f} to {:.2f}), multiplies {:.1f} "
      "GFLOP/s with {} ({:.1f} to {:.1f})\n",
      ProcessorName(), bench.options().num_threads, bench.backend().numerics_id(),
      bench.backend().isa(), limits.read_bytes.Median() / kGiga,
      limits.read_bytes.Min() / kGiga, limits.read_bytes.Max() / kGiga,
      2 * limits.multiply_adds.Median() / kGiga,
      MachineLimits::InstructionSet(ArithmeticOf(bench.options())),
      2 * limits.multiply_adds.Min() / kGiga, 2 * limits.multiply_adds.Max() / kGiga);
}

absl::Status Measure(ModelPhase phase, ModelBenchOptions options, Clock* clock) {
  TESSERA_ASSIGN_OR_RETURN(const std::vector<BenchPoint> points,
                           PlanModelBench(phase, &options));
  TESSERA_RETURN_IF_ERROR(PlaceRank(&options.model));
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<LoadedModel> model,
                           LoadModel(options.model.model, options.model.load));
  TESSERA_ASSIGN_OR_RETURN(const RankOptions rank,
                           RankOptionsOf(options.model, model->config, 1));
  TESSERA_RETURN_IF_ERROR(
      ReadWeights(*model, GroupShape{}, std::nullopt, /*quiet=*/true, clock));
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<ModelBench> bench,
                           ModelBench::Create(*model, rank, points, clock));
  std::vector<Measured> measured(points.size());
  for (size_t i = 0; i < points.size(); ++i) {
    measured[i].point = points[i];
    TESSERA_RETURN_IF_ERROR(FillCost(phase, *model, *bench, &measured[i]));
  }
  MachineLimits machine(bench->options().num_threads, clock);
  Limits limits;
  for (int round = 0; round < options.rounds; ++round) {
    TESSERA_RETURN_IF_ERROR(Round(phase, *bench, machine, &limits, &measured));
  }
  PrintLimits(*bench, limits);
  for (const Measured& point : measured) {
    PrintPoint(phase, point);
  }
  if (options.output_json.empty()) {
    return absl::OkStatus();
  }
  return WriteJson(options.output_json,
                   ResultJson(phase, options, *bench, limits, measured));
}

absl::Status RunModelBench(ModelPhase phase, Arguments arguments) {
  ModelBenchOptions options;
  const bool decode = phase == ModelPhase::kDecode;
  OptionTable table(
      decode ? "bench decode" : "bench prefill",
      decode ? "Times decode steps of a model in this process. Of each point: median and "
               "spread over the rounds, the bytes that a step must read (weights, of "
               "routed experts those that were chosen, and cached rows), and their share "
               "of the read bandwidth measured in the same round."
             : "Times prefills of a model in this process. Of each point: median and "
               "spread over the rounds, the FLOPs of its weights and of attention, and "
               "their share of the multiply-add peak measured in the same round.");
  DeclareModelBench(&table, phase, &options);
  TESSERA_ASSIGN_OR_RETURN(const bool go_on, ParseOptions(&table, arguments));
  if (!go_on) {
    return absl::OkStatus();
  }
  return Measure(phase, std::move(options), Clock::Real());
}

}  // namespace

absl::Status RunBenchDecode(Arguments arguments) {
  return RunModelBench(ModelPhase::kDecode, arguments);
}

absl::Status RunBenchPrefill(Arguments arguments) {
  return RunModelBench(ModelPhase::kPrefill, arguments);
}

}  // namespace tessera::cli
