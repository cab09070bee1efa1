// SpeculativeOptions: how many tokens are drafted ahead, as a plain number or in the JSON
// that users of vLLM type, and what that means for a model.
#ifndef TESSERA_CLI_SPECULATIVE_OPTIONS_H_
#define TESSERA_CLI_SPECULATIVE_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

#include "common/option_table.h"
#include "model/config/model_config.h"

namespace tessera::cli {

struct SpeculativeOptions {
  std::optional<int64_t> tokens;
  std::string config;  // JSON; empty: not given
};

// Adds --speculative-tokens and --speculative-config to `table`; `options` must outlive
// it.
void AddSpeculativeOptions(OptionTable* table, SpeculativeOptions* options);

// Drafts of one sequence and step; 0: speculation is off, the default. A config without
// num_speculative_tokens means what the model was trained for: one per draft layer, or a
// DSpark block. kInvalidArgument: both options at once, JSON that is no such object, a
// method that the model does not have, or more drafts than it or a plan can make.
absl::StatusOr<int64_t> SpeculativeTokensOf(const SpeculativeOptions& options,
                                            const model::ModelConfig& config);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_SPECULATIVE_OPTIONS_H_
