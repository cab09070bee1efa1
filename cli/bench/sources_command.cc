#include "cli/bench/sources_command.h"

#include <cstdint>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/bench/engram_sources.h"
#include "cli/bench/figures.h"
#include "cli/bench/machine_limits.h"
#include "cli/bench/model_bench.h"
#include "cli/load_progress.h"
#include "cli/loaded_model.h"
#include "cli/model_options.h"
#include "cli/numa/numa_options.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "common/build_info.h"
#include "common/clock.h"
#include "common/option_table.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::cli {
namespace {

using engram_store::EngramSource;

struct Options {
  ModelOptions model;
  EngramSourcesOptions sources;
  std::string names = "resident,shm,remote";
  int num_shards = 2;
  int64_t batch = 1;
  int64_t prompt_tokens = 256;
  int64_t steps = 32;
  int rounds = 11;
  std::string output_json;
};

// Of one source, or of the first source with one token again and again.
struct Point {
  std::string name;
  size_t source = 0;
  TokenChoice choice = TokenChoice::kRandom;
  Spread prefill_seconds;
  Spread step_seconds;
  Spread prefill_stalled;  // seconds of a whole prefill
  Spread step_stalled;     // of a step
  // Against the first point in the same round: of all time, and of the time stood still,
  // over the first point's whole time.
  Spread prefill_ratio;
  Spread step_ratio;
  Spread prefill_stall_share;
  Spread step_stall_share;
};

std::vector<std::string> Names(const std::string& list) {
  std::vector<std::string> names;
  std::istringstream stream(list);
  for (std::string name; std::getline(stream, name, ',');) {
    names.push_back(name);
  }
  return names;
}

void DeclareOptions(OptionTable* table, Options* options) {
  AddModelOptions(table, &options->model);
  table->Heading("Sources");
  table->Add("sources", &options->names,
             "what is compared, with commas; the first is what the others are held "
             "against: resident,shm,remote,disk");
  table->Add("num-shards", &options->num_shards, "shards behind shm and remote")
      .Range(1, 64);
  AddTableOptions(table, &options->sources.tables);
  table->Heading("Measurement");
  table->Add("batch-size", &options->batch, "sequences of a step").Range(1, 4096);
  table->Add("prompt-length", &options->prompt_tokens, "tokens of each sequence's prompt")
      .Range(1, 1 << 20);
  table->Add("steps", &options->steps, "decode steps of a run").Range(1, 1 << 16);
  table->Add("rounds", &options->rounds, "each runs every source once, in turn")
      .Range(1, 1000);
  table->Add("output-json", &options->output_json, "file for the figures of every round");
}

absl::Status Run(const BenchPoint& point, const std::unique_ptr<EngramSource>& source,
                 ModelBench& bench, SwitchedSource* switched, Point* out) {
  switched->SwitchTo(source.get());
  double prefill_stalled = 0;
  TESSERA_ASSIGN_OR_RETURN(const PointTime time, bench.Run(point, [&] {
    prefill_stalled = absl::ToDoubleSeconds(switched->TakeStalledTime());
  }));
  out->prefill_seconds.rounds.push_back(time.prefill_seconds);
  out->prefill_stalled.rounds.push_back(prefill_stalled);
  out->step_seconds.rounds.push_back(time.step_seconds);
  out->step_stalled.rounds.push_back(absl::ToDoubleSeconds(switched->TakeStalledTime()) /
                                     static_cast<double>(point.steps));
  return absl::OkStatus();
}

void Compare(const Point& base, Point* point) {
  const auto add = [](const Spread& from, const Spread& of, Spread* ratio) {
    ratio->rounds.push_back(from.rounds.back() / of.rounds.back());
  };
  add(point->prefill_seconds, base.prefill_seconds, &point->prefill_ratio);
  add(point->step_seconds, base.step_seconds, &point->step_ratio);
  const auto share = [](const Spread& stalled, const Spread& stalled_base,
                        const Spread& all, Spread* out) {
    out->rounds.push_back((stalled.rounds.back() - stalled_base.rounds.back()) /
                          all.rounds.back());
  };
  share(point->prefill_stalled, base.prefill_stalled, base.prefill_seconds,
        &point->prefill_stall_share);
  share(point->step_stalled, base.step_stalled, base.step_seconds,
        &point->step_stall_share);
}

void Print(const Options& options, const ModelBench& bench, const LoadedModel& model,
           const std::vector<Point>& points) {
  std::cout << fmt::format(
      "{}, {} threads, {} ({}); {} sequences, prompts of {} tokens, {} steps, {} rounds; "
      "{} rows a token\n",
      ProcessorName(), bench.options().num_threads, bench.backend().numerics_id(),
      bench.backend().isa(), options.batch, options.prompt_tokens, options.steps,
      options.rounds,
      model.config.engram->num_columns() *
          static_cast<int64_t>(model.config.engram->layer_ids.size()));
  for (const Point& point : points) {
    std::cout << fmt::format(
        "{:<18} step {} {:+.2f} %, stands still {:.1f} us, {:+.2f} % of a step; prefill "
        "{:.3f} ms {:+.2f} %, stands still {:+.2f} % of it\n",
        point.name, point.step_seconds.Text(1e3, "ms"),
        100 * (point.step_ratio.Median() - 1), 1e6 * point.step_stalled.Median(),
        100 * point.step_stall_share.Median(), 1e3 * point.prefill_seconds.Median(),
        100 * (point.prefill_ratio.Median() - 1),
        100 * point.prefill_stall_share.Median());
  }
}

nlohmann::json ResultJson(const Options& options, const ModelBench& bench,
                          const std::vector<Point>& points) {
  nlohmann::json json = {{"command", "sources"},
                         {"version", Version()},
                         {"model", options.model.model},
                         {"overrides", options.model.load.overrides},
                         {"numerics", bench.backend().numerics_id()},
                         {"isa", bench.backend().isa()},
                         {"processor", ProcessorName()},
                         {"threads", bench.options().num_threads},
                         {"rounds", options.rounds},
                         {"batch_size", options.batch},
                         {"prompt_tokens", options.prompt_tokens},
                         {"steps", options.steps},
                         {"points", nlohmann::json::array()}};
  for (const Point& point : points) {
    json["points"].push_back({{"source", point.name},
                              {"step_seconds", point.step_seconds.Json()},
                              {"step_ratio", point.step_ratio.Json()},
                              {"step_stalled_seconds", point.step_stalled.Json()},
                              {"step_stall_share", point.step_stall_share.Json()},
                              {"prefill_seconds", point.prefill_seconds.Json()},
                              {"prefill_ratio", point.prefill_ratio.Json()},
                              {"prefill_stall_share", point.prefill_stall_share.Json()}});
  }
  return json;
}

std::vector<Point> PointsOf(const std::vector<std::string>& names) {
  std::vector<Point> points;
  for (size_t i = 0; i < names.size(); ++i) {
    points.emplace_back().name = names[i];
    points.back().source = i;
  }
  points.emplace_back().name = names.front() + ", one token";
  points.back().choice = TokenChoice::kRepeated;
  return points;
}

absl::Status Measure(Options options, Clock* clock) {
  options.sources.names = Names(options.names);
  options.sources.num_shards = static_cast<uint32_t>(options.num_shards);
  if (options.sources.names.empty() || options.model.model.empty()) {
    return absl::InvalidArgumentError("expected --model DIR and some --sources");
  }
  options.model.max_model_len = options.prompt_tokens + options.steps + 1;
  options.model.max_num_seqs = options.batch;
  TESSERA_RETURN_IF_ERROR(
      CheckNumaOptions(options.model.numa, options.model.backend, 0, 1));
  TESSERA_RETURN_IF_ERROR(PlaceRank(&options.model));
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<LoadedModel> model,
                           LoadModel(options.model.model, options.model.load));
  TESSERA_ASSIGN_OR_RETURN(const RankOptions rank,
                           RankOptionsOf(options.model, model->config, 1));
  TESSERA_RETURN_IF_ERROR(
      ReadWeights(*model, GroupShape{}, std::nullopt, /*quiet=*/true, clock));
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<EngramSources> sources,
                           EngramSources::Create(*model, options.sources, clock));
  BenchPoint point = {.batch = options.batch,
                      .prompt_tokens = options.prompt_tokens,
                      .steps = options.steps,
                      .made_up_steps = true};
  auto owned = std::make_unique<SwitchedSource>(sources->sources()[0].get(), clock);
  SwitchedSource* const switched = owned.get();
  TESSERA_ASSIGN_OR_RETURN(
      const std::unique_ptr<ModelBench> bench,
      ModelBench::Create(*model, rank, {point}, clock,
                         [&owned](int) -> absl::StatusOr<std::unique_ptr<EngramSource>> {
                           return std::move(owned);
                         }));
  std::vector<Point> points = PointsOf(options.sources.names);
  std::vector<Point> warm_up = points;
  for (int round = -1; round < options.rounds; ++round) {
    // Other tokens in every round, the same for every source.
    point.seed = static_cast<uint32_t>(round + 2);
    std::vector<Point>& into = round < 0 ? warm_up : points;
    for (size_t i = 0; i < into.size(); ++i) {
      // Nobody is always first.
      Point& next = into[(i + static_cast<size_t>(round + 1)) % into.size()];
      point.choice = next.choice;
      TESSERA_RETURN_IF_ERROR(
          Run(point, sources->sources()[next.source], *bench, switched, &next));
    }
    for (Point& each : into) {
      Compare(into.front(), &each);
    }
  }
  Print(options, *bench, *model, points);
  return options.output_json.empty()
             ? absl::OkStatus()
             : WriteJson(options.output_json, ResultJson(options, *bench, points));
}

}  // namespace

absl::Status RunBenchSources(Arguments arguments) {
  Options options;
  OptionTable table(
      "bench sources",
      "Times prefill and decode steps of a model in this process with its Engram rows "
      "from one source after the other, in turn: one runner, the same tokens. Of each "
      "source: the time of a step, its distance to the first source in the same round, "
      "and the time that the runner stood still for rows, which noise touches less. Also "
      "the first source with prompts of one token again and again.");
  DeclareOptions(&table, &options);
  TESSERA_ASSIGN_OR_RETURN(const bool go_on, ParseOptions(&table, arguments));
  return go_on ? Measure(std::move(options), Clock::Real()) : absl::OkStatus();
}

}  // namespace tessera::cli
