#include "cli/loaded_model.h"

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

#include "common/option_table.h"
#include "common/status_macros.h"
#include "engram_store/table/checkpoint_tables.h"
#include "model/config/model_config.h"
#include "model/config/strict_json.h"
#include "model/tensors/checkpoint.h"
#include "model/tensors/dummy_checkpoint.h"
#include "model/tensors/tensor_inventory.h"

namespace tessera::cli {
namespace {

absl::StatusOr<std::unique_ptr<model::Checkpoint>> OpenCheckpoint(
    const std::string& directory, const LoadOptions& options,
    const model::ModelConfig& config) {
  if (options.is_dummy()) {
    TESSERA_ASSIGN_OR_RETURN(const std::string text,
                             model::ReadSmallFile(directory + "/config.json",
                                                  model::StrictJsonLimits{}.bytes));
    return model::MakeDummyCheckpoint(
        config, options.seed,
        fmt::format("{}\n{}", fmt::join(options.overrides, "\n"), text));
  }
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<model::Checkpoint> checkpoint,
                           model::Checkpoint::Open(directory, options.overrides));
  TESSERA_RETURN_IF_ERROR(model::ValidateCheckpoint(config, *checkpoint));
  return checkpoint;
}

}  // namespace

void AddLoadOptions(OptionTable* table, LoadOptions* options) {
  table
      ->Add("load-format", &options->format,
            "where weights come from: auto and safetensors: the folder's files; dummy: "
            "made up, for which config.json is enough")
      .OneOf({"auto", "safetensors", "dummy"});
  table->Add("load-seed", &options->seed, "seed of dummy weights");
  table->Add("override", &options->overrides,
             "KEY=VALUE: a field of config.json, in its place; num_hidden_layers=N cuts "
             "the model to its first layers. May be given several times");
}

std::vector<std::string> LoadArguments(const LoadOptions& options) {
  std::vector<std::string> words = {"--load-format=" + options.format,
                                    fmt::format("--load-seed={}", options.seed)};
  for (const std::string& override : options.overrides) {
    words.push_back("--override=" + override);
  }
  return words;
}

absl::StatusOr<std::unique_ptr<LoadedModel>> LoadModel(const std::string& directory,
                                                       const LoadOptions& options) {
  auto loaded = std::make_unique<LoadedModel>();
  TESSERA_ASSIGN_OR_RETURN(loaded->config,
                           model::LoadModelConfig(directory, options.overrides));
  TESSERA_ASSIGN_OR_RETURN(loaded->checkpoint,
                           OpenCheckpoint(directory, options, loaded->config));
  if (loaded->config.engram.has_value()) {
    TESSERA_ASSIGN_OR_RETURN(
        loaded->hash,
        engram_store::LoadEngramHash(loaded->config, *loaded->checkpoint, directory));
  }
  return loaded;
}

}  // namespace tessera::cli
