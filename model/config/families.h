// The readers of config.json, one per family. Each takes the parsed document and gives
// the validated description; the table of model types is in model_config.cc. A new family
// is a new function here, in a source of its own where it shares no choice with another.
//
// All of them: kInvalidArgument names the field, what was found and what was expected.
#ifndef TESSERA_MODEL_CONFIG_FAMILIES_H_
#define TESSERA_MODEL_CONFIG_FAMILIES_H_

#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"

#include "model/config/model_config.h"

namespace tessera::model {

// mla_families.cc: MLA with or without DSA.
absl::StatusOr<ModelConfig> ReadV3(const nlohmann::json& document);
absl::StatusOr<ModelConfig> ReadV32(const nlohmann::json& document);
absl::StatusOr<ModelConfig> ReadV4Mla(const nlohmann::json& document);

// compressed_families.cc: window and compressed attention. ReadV4 takes V4-Flash, V4-Pro
// and V4-Flash-0731, which differ in sizes and in what drafts.
absl::StatusOr<ModelConfig> ReadV4(const nlohmann::json& document);
absl::StatusOr<ModelConfig> ReadV41(const nlohmann::json& document);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CONFIG_FAMILIES_H_
