// The command line of `tessera bench decode` and `tessera bench prefill`, and what it
// comes to.
//
// It stands under the two subcommands. It checks what spans several options and opens no
// file.
#ifndef TESSERA_CLI_BENCH_MODEL_BENCH_OPTIONS_H_
#define TESSERA_CLI_BENCH_MODEL_BENCH_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/bench/model_bench.h"
#include "cli/model_options.h"

#include "common/option_table.h"

namespace tessera::cli {

enum class ModelPhase { kDecode, kPrefill };

// As typed, bound to the table by DeclareModelBench.
struct ModelBenchOptions {
  ModelOptions model;
  std::string batch_sizes = "1,4,16";
  std::string prompt_lengths = "128";
  int64_t steps = 32;
  int rounds = 5;
  bool stitched_prompts = false;
  std::string output_json;
};

void DeclareModelBench(OptionTable* table, ModelPhase phase, ModelBenchOptions* options);

// Every batch size with every prompt length; of a prefill every length once. Makes the
// model options fit the points: length and slots. kInvalidArgument: no model, a value
// that is no count, more than one rank.
absl::StatusOr<std::vector<BenchPoint>> PlanModelBench(ModelPhase phase,
                                                       ModelBenchOptions* options);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_BENCH_MODEL_BENCH_OPTIONS_H_
