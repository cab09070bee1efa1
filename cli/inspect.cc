// tessera inspect: what a checkpoint folder holds, after checking that it holds all of
// it.
#include <cstdint>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "cli/subcommand.h"

#include "common/log.h"
#include "common/option_table.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/hashing/token_compression.h"
#include "engram_store/table/token_map.h"
#include "model/tensors/checkpoint.h"
#include "model/tensors/model_summary.h"
#include "model/tokenizer/tokenizer.h"

namespace tessera::cli {
namespace {

// Whether the Engram map that the checkpoint ships is the one its tokenizer gives. A
// difference is a warning, not an error: the shipped map is what serving uses, and it may
// have been made with another version of Unicode.
absl::Status CheckEngramMap(const model::ModelConfig& config,
                            const std::string& directory) {
  absl::StatusOr<std::unique_ptr<model::Tokenizer>> tokenizer =
      model::Tokenizer::Load(directory);
  if (absl::IsNotFound(tokenizer.status())) {
    return absl::OkStatus();  // Nothing to compare with.
  }
  TESSERA_RETURN_IF_ERROR(tokenizer.status());
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<model::Checkpoint> checkpoint,
                           model::Checkpoint::Open(directory));
  TESSERA_ASSIGN_OR_RETURN(const std::vector<int32_t> compressed_ids,
                           engram_store::LoadTokenMap(config, *checkpoint, directory));
  const absl::Status verified =
      engram_store::VerifyCompressedIds(**tokenizer, compressed_ids);
  if (!verified.ok()) {
    log::Warning("inspect", "the engram map is not that of the tokenizer",
                 {{"difference", verified.ToString()}});
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RunInspect(Arguments arguments) {
  std::string model;
  bool json = false;
  std::vector<std::string> overrides;
  OptionTable table("inspect",
                    "Prints what a checkpoint holds: family, tensors, formats, bytes, "
                    "parameters. Reads config.json and the headers of the weights; with "
                    "config.json alone it prints what such a checkpoint would hold.");
  table.Add("model", &model, "checkpoint folder").Positional("MODEL");
  table.Add("json", &json, "print one JSON object");
  table.Add(
      "override", &overrides,
      "KEY=VALUE: a field of config.json, in its place; then the sizes are those of "
      "the config alone. May be given several times");
  TESSERA_ASSIGN_OR_RETURN(const bool go_on, ParseOptions(&table, arguments));
  if (!go_on) {
    return absl::OkStatus();
  }
  if (model.empty()) {
    return InvalidArgumentF("no checkpoint folder, expected one: tessera inspect MODEL");
  }
  TESSERA_ASSIGN_OR_RETURN(const model::ModelSummary summary,
                           model::SummarizeDirectory(model, overrides));
  std::cout << (json ? model::FormatSummaryJson(summary) : model::FormatSummary(summary))
            << std::flush;
  if (summary.config.engram.has_value() && !summary.digest.empty()) {
    return CheckEngramMap(summary.config, model);
  }
  return absl::OkStatus();
}

}  // namespace tessera::cli
