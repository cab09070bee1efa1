#include "cli/bench/model_bench_options.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/bench/figures.h"
#include "cli/model_options.h"

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::cli {
namespace {

constexpr int64_t kMaxBatch = 4096;
constexpr int64_t kMaxPrompt = int64_t{1} << 20;

}  // namespace

void DeclareModelBench(OptionTable* table, ModelPhase phase, ModelBenchOptions* options) {
  AddModelOptions(table, &options->model);
  table->Heading("Measurement");
  if (phase == ModelPhase::kDecode) {
    table->Add("batch-sizes", &options->batch_sizes,
               "sequences of one step, with commas: 1,4,16");
    table
        ->Add("steps", &options->steps,
              "decode steps of a round, each of one token for every sequence")
        .Range(1, 1 << 16);
  }
  if (phase == ModelPhase::kPrefill) {
    options->prompt_lengths = "512,2048";
  }
  if (phase == ModelPhase::kDecode) {
    table->Add("stitched-prompts", &options->stitched_prompts,
               "prompts are put together from pieces that are computed apart, so that "
               "long ones take time by their length alone; steps are of made-up tokens");
  }
  table->Add("prompt-lengths", &options->prompt_lengths,
             phase == ModelPhase::kDecode
                 ? "tokens of each sequence before the first step, with commas"
                 : "tokens of the prompt, with commas: 512,2048");
  table
      ->Add("rounds", &options->rounds,
            "each measures the machine's limits and every point once")
      .Range(1, 1000);
  table->Add("output-json", &options->output_json, "file for the figures of every round");
}

absl::StatusOr<std::vector<BenchPoint>> PlanModelBench(ModelPhase phase,
                                                       ModelBenchOptions* options) {
  if (options->model.model.empty()) {
    return absl::InvalidArgumentError("a model folder is missing: --model DIR");
  }
  TESSERA_ASSIGN_OR_RETURN(const GroupShape shape, ShapeOf(options->model));
  if (shape.num_ranks() != 1 || options->model.workers != 0) {
    return InvalidArgumentF("{} ranks, expected one in this process", shape.num_ranks());
  }
  if (options->model.speculative.tokens.value_or(0) > 0 ||
      !options->model.speculative.config.empty()) {
    return absl::InvalidArgumentError(
        "--speculative-tokens and --speculative-config: steps are measured without "
        "drafts");
  }
  TESSERA_ASSIGN_OR_RETURN(
      const std::vector<int64_t> lengths,
      ReadCounts("--prompt-lengths", options->prompt_lengths, kMaxPrompt));
  std::vector<int64_t> batches = {1};
  if (phase == ModelPhase::kDecode) {
    TESSERA_ASSIGN_OR_RETURN(
        batches, ReadCounts("--batch-sizes", options->batch_sizes, kMaxBatch));
  }
  const int64_t steps = phase == ModelPhase::kDecode ? options->steps : 0;
  std::vector<BenchPoint> points;
  for (const int64_t length : lengths) {
    for (const int64_t batch : batches) {
      points.push_back({.batch = batch,
                        .prompt_tokens = length,
                        .steps = steps,
                        .stitched = options->stitched_prompts});
    }
  }
  const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  options->model.max_model_len = longest + steps + 1;
  options->model.max_num_seqs = *std::max_element(batches.begin(), batches.end());
  return points;
}

}  // namespace tessera::cli
