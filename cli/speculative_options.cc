#include "cli/speculative_options.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

#include "common/option_table.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "model/config/json_fields.h"
#include "model/config/model_config.h"
#include "model/config/strict_json.h"
#include "proto/step_plan.h"

namespace tessera::cli {
namespace {

constexpr size_t kMaxConfigBytes = 4096;
constexpr auto kMostDrafts = static_cast<int64_t>(proto::kMaxDrafts);

// Drafts that the model's drafter makes at most; an MTP layer can be fed back for ever.
int64_t MostDrafts(const model::ModelConfig& config) {
  return config.dspark.has_value() ? std::min(config.dspark->block_size, kMostDrafts)
                                   : kMostDrafts;
}

int64_t TrainedDrafts(const model::ModelConfig& config) {
  return config.dspark.has_value() ? MostDrafts(config)
                                   : std::max<int64_t>(1, config.num_draft_layers);
}

// The number in the JSON of --speculative-config.
absl::StatusOr<int64_t> ReadConfig(std::string_view text,
                                   const model::ModelConfig& config) {
  TESSERA_ASSIGN_OR_RETURN(
      const nlohmann::json json,
      model::ParseStrictJson(text, {.bytes = kMaxConfigBytes, .depth = 2}));
  model::JsonFields fields(json);
  fields.RefuseOthers({"method", "num_speculative_tokens"});
  const bool wants_dspark =
      fields.Choice("method", {"mtp", "deepseek_mtp", "dspark"}) == 2;
  const int64_t tokens =
      fields.Int("num_speculative_tokens", {0, kMostDrafts}, TrainedDrafts(config));
  TESSERA_RETURN_IF_ERROR(fields.status());
  if (tokens > 0 && wants_dspark != config.dspark.has_value()) {
    return InvalidArgumentF("method {}, the model drafts by {}",
                            wants_dspark ? "dspark" : "mtp",
                            wants_dspark ? "mtp" : "dspark");
  }
  return tokens;
}

}  // namespace

void AddSpeculativeOptions(OptionTable* table, SpeculativeOptions* options) {
  table
      ->Add("speculative-tokens", &options->tokens,
            "tokens that the model's draft layer guesses ahead of each step; the output "
            "is the same; 0: none, the default")
      .Range(0, static_cast<double>(kMostDrafts));
  table->Add("speculative-config", &options->config,
             "the same as JSON: {\"method\": \"mtp\" or \"dspark\", "
             "\"num_speculative_tokens\": N}");
}

absl::StatusOr<int64_t> SpeculativeTokensOf(const SpeculativeOptions& options,
                                            const model::ModelConfig& config) {
  if (options.tokens.has_value() && !options.config.empty()) {
    return InvalidArgumentF(
        "--speculative-tokens {} and --speculative-config {}, expected one of them",
        *options.tokens, options.config);
  }
  int64_t tokens = options.tokens.value_or(0);
  const bool has_drafts = config.draft != model::DraftKind::kNone;
  if (!options.config.empty()) {
    const auto read = ReadConfig(options.config, config);
    TESSERA_RETURN_IF_ERROR(WithContext(read.status(), "--speculative-config"));
    tokens = *read;
  }
  if (tokens > 0 && !has_drafts) {
    return InvalidArgumentF("{} speculative tokens, the model has no draft layer",
                            tokens);
  }
  if (tokens > MostDrafts(config)) {
    return InvalidArgumentF("{} speculative tokens, the model drafts at most {}", tokens,
                            MostDrafts(config));
  }
  return tokens;
}

}  // namespace tessera::cli
