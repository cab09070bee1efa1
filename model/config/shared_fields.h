// Readers of the parts of config.json that several families share, and the bounds that
// all of them hold to. Each takes the fields of the object that has the part and records
// its faults there; those that return a status stop at the first. Which family has which
// part is decided by the readers of families.h.
#ifndef TESSERA_MODEL_CONFIG_SHARED_FIELDS_H_
#define TESSERA_MODEL_CONFIG_SHARED_FIELDS_H_

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "model/config/json_fields.h"
#include "model/config/model_config.h"

namespace tessera::model {

// Bounds of sanity, far above any model: below them every product of sizes fits 63 bits,
// and no config makes us enumerate more than about a million tensors.
inline constexpr IntRange kVocabularyRange = {1, int64_t{1} << 24};
inline constexpr IntRange kHiddenRange = {1, int64_t{1} << 17};
inline constexpr IntRange kLayerRange = {1, 1024};
inline constexpr IntRange kWidthRange = {1, int64_t{1} << 20};
inline constexpr IntRange kRankRange = {1, int64_t{1} << 16};
inline constexpr IntRange kHeadRange = {1, 1024};
inline constexpr IntRange kHeadDimRange = {1, 8192};
inline constexpr IntRange kPositionRange = {1, int64_t{1} << 26};
inline constexpr IntRange kExpertRange = {1, 4096};
inline constexpr NumberRange kEpsilonRange = {1e-30, 0.1};
inline constexpr NumberRange kThetaRange = {1.001, 1e12};

// Fields that must be absent, null, false or 0.
void RefuseOfAnotherFamily(JsonFields& fields,
                           std::initializer_list<std::string_view> names);

// `architectures`, where it is there, names just this one.
void CheckArchitecture(JsonFields& fields, std::string_view architecture);

// Vocabulary, hidden size, layers, positions, epsilon, activation.
void ReadSizes(JsonFields& fields, ModelConfig& config);

// `rope_scaling`: YaRN in full, or absent. `has_mscale`: it may have the two fields that
// change the softmax scale. kUnimplemented: scaling of cos and sin.
absl::StatusOr<std::optional<YarnConfig>> ReadYarn(JsonFields& fields, bool has_mscale);

void ReadHyperConnections(JsonFields& fields, HyperConnectionConfig& hyper);

// Experts, groups and weights of the routed MoE, but not its score and formats. The sizes
// must have been read.
void ReadExperts(JsonFields& fields, ModelConfig& config);

// What a family lets `quantization_config` say.
struct QuantizationRules {
  int64_t block = 128;                // weight_block_size is [block, block]
  bool requires_fmt = true;           // else `fmt` may be absent
  bool requires_scale_format = true;  // else scales may be any number
  bool names_expert_dtype = false;    // `expert_dtype` is in there
};
// `quantization_config` into fp8_linears and weight_block. The dtype of the experts where
// it is named in there.
absl::StatusOr<std::optional<DType>> ReadQuantization(JsonFields& fields,
                                                      const QuantizationRules& rules,
                                                      ModelConfig& config);
// `expert_dtype` of these fields; absent: the format of the linears.
DType ReadExpertDType(JsonFields& fields, const ModelConfig& config);
// Faults of an expert dtype that does not fit the other formats and sizes.
void CheckExpertDType(JsonFields& fields, const ModelConfig& config);

// The `engram_…` fields; nothing where `engram_layer_ids` is empty. `contract`: what the
// family has, or else the field `engram_contract` says it. The sizes must have been read.
absl::Status ReadEngram(JsonFields& fields, std::optional<EngramContract> contract,
                        ModelConfig& config);

// eos_token_id and bos_token_id where they are. The sizes must have been read.
void ReadStopTokens(JsonFields& fields, ModelConfig& config);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CONFIG_SHARED_FIELDS_H_
