#include <cstdint>
#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "common/status_macros.h"
#include "model/config/families.h"
#include "model/config/json_fields.h"
#include "model/config/model_config.h"
#include "model/config/shared_fields.h"
#include "model/formats/dtype.h"

namespace tessera::model {
namespace {

// A family: the choices of its forward pass and how its config and checkpoint differ.
struct MlaFamily {
  std::string_view model_type;
  std::string_view architecture;
  std::string_view name;
  AttentionKind attention;
  ResidualKind residual;
  DraftKind draft;  // where it has draft layers
  bool has_engram;
  bool draft_has_copies;
  bool quantizes_index_vectors;
  bool allows_bf16_index_norm;
  bool names_expert_dtype;
  bool needs_scale_format;  // else scales may be any number
};
constexpr MlaFamily kV3 = {
    .model_type = "deepseek_v3",
    .architecture = "DeepseekV3ForCausalLM",
    .name = "v3",
    .attention = AttentionKind::kMla,
    .residual = ResidualKind::kPlain,
    .draft = DraftKind::kMtpNormed,
    .has_engram = false,
    .draft_has_copies = true,
    .quantizes_index_vectors = false,
    .allows_bf16_index_norm = false,
    .names_expert_dtype = false,
    .needs_scale_format = false,
};
constexpr MlaFamily kV32 = {
    .model_type = "deepseek_v32",
    .architecture = "DeepseekV32ForCausalLM",
    .name = "v3.2",
    .attention = AttentionKind::kMlaDsa,
    .residual = ResidualKind::kPlain,
    .draft = DraftKind::kMtpNormed,
    .has_engram = false,
    .draft_has_copies = true,
    .quantizes_index_vectors = true,
    .allows_bf16_index_norm = true,
    .names_expert_dtype = false,
    .needs_scale_format = true,
};
constexpr MlaFamily kV4Mla = {
    .model_type = "deepseek_v4_mla",
    .architecture = "DeepseekV4MlaForCausalLM",
    .name = "v4_mla",
    .attention = AttentionKind::kMlaDsa,
    .residual = ResidualKind::kHyperConnections,
    .draft = DraftKind::kMtpStreams,
    .has_engram = true,
    .draft_has_copies = false,
    .quantizes_index_vectors = false,
    .allows_bf16_index_norm = false,
    .names_expert_dtype = true,
    .needs_scale_format = true,
};

void RefuseOtherFamilies(JsonFields& fields, const MlaFamily& family) {
  RefuseOfAnotherFamily(
      fields, {"swiglu_limit", "attention_bias", "tie_word_embeddings", "num_hash_layers",
               "sliding_window", "compress_ratios", "compress_rope_theta", "o_groups",
               "o_lora_rank", "dspark_block_size"});
  if (family.attention != AttentionKind::kMlaDsa) {
    RefuseOfAnotherFamily(fields, {"index_n_heads", "index_head_dim", "index_topk"});
  }
  if (family.residual != ResidualKind::kHyperConnections) {
    RefuseOfAnotherFamily(fields, {"hc_mult", "hc_sinkhorn_iters", "hc_eps"});
  }
  if (!family.has_engram) {
    RefuseOfAnotherFamily(fields, {"engram_layer_ids"});
  }
  if (!family.names_expert_dtype) {
    RefuseOfAnotherFamily(fields, {"expert_dtype"});
  }
}

void ReadLayers(JsonFields& fields, const MlaFamily& family, ModelConfig& config) {
  ReadSizes(fields, config);
  config.dense_width = fields.Int("intermediate_size", kWidthRange);
  config.num_dense_layers =
      fields.Int("first_k_dense_replace", {0, config.num_layers}, 0);
  fields.Int("moe_layer_freq", {1, 1}, 1);
  config.num_draft_layers = fields.Int("num_nextn_predict_layers", {0, 1}, 0);
  config.draft = config.num_draft_layers > 0 ? family.draft : DraftKind::kNone;
  config.draft_has_copies = config.num_draft_layers > 0 && family.draft_has_copies;
}

void ReadAttention(JsonFields& fields, ModelConfig& config) {
  MlaConfig& mla = config.mla;
  mla.num_heads = fields.Int("num_attention_heads", kHeadRange);
  // Every head has keys and values of its own, made from the latent.
  fields.Int("num_key_value_heads", {mla.num_heads, mla.num_heads}, mla.num_heads);
  mla.q_lora_rank = fields.Int("q_lora_rank", kRankRange);
  mla.kv_lora_rank = fields.Int("kv_lora_rank", kRankRange);
  mla.qk_nope_head_dim = fields.Int("qk_nope_head_dim", kHeadDimRange);
  mla.qk_rope_head_dim = fields.Int("qk_rope_head_dim", kHeadDimRange);
  mla.v_head_dim = fields.Int("v_head_dim", kHeadDimRange);
  if (mla.qk_rope_head_dim % 2 != 0) {
    fields.Fault("qk_rope_head_dim",
                 fmt::format("is {}, expected an even number", mla.qk_rope_head_dim));
  }
}

void ReadIndexer(JsonFields& fields, const MlaFamily& family, ModelConfig& config) {
  IndexerConfig& indexer = config.indexer;
  indexer.quantizes_vectors = family.quantizes_index_vectors;
  indexer.allows_bf16_norm = family.allows_bf16_index_norm;
  indexer.applies_hadamard = true;
  indexer.num_heads = fields.Int("index_n_heads", kHeadRange);
  indexer.head_dim = fields.Int("index_head_dim", kHeadDimRange);
  indexer.topk = fields.Int("index_topk", kPositionRange);
  const bool is_power = (indexer.head_dim & (indexer.head_dim - 1)) == 0;
  if (!is_power || indexer.head_dim < config.mla.qk_rope_head_dim) {
    fields.Fault(
        "index_head_dim",
        fmt::format("is {}, expected a power of two of at least {}, the rope dims",
                    indexer.head_dim, config.mla.qk_rope_head_dim));
  }
}

absl::Status ReadFormats(JsonFields& fields, const MlaFamily& family,
                         ModelConfig& config) {
  TESSERA_RETURN_IF_ERROR(
      ReadQuantization(fields, {.requires_scale_format = family.needs_scale_format},
                       config)
          .status());
  if (family.names_expert_dtype) {
    config.moe.expert_dtype = ReadExpertDType(fields, config);
    CheckExpertDType(fields, config);
  } else {
    config.moe.expert_dtype = config.fp8_linears ? DType::kF8E4M3 : DType::kBF16;
  }
  return absl::OkStatus();
}

absl::StatusOr<ModelConfig> Read(const nlohmann::json& document,
                                 const MlaFamily& family) {
  JsonFields fields(document);
  ModelConfig config;
  config.family = family.name;
  config.model_type = family.model_type;
  config.attention = family.attention;
  config.residual = family.residual;
  RefuseOtherFamilies(fields, family);
  CheckArchitecture(fields, family.architecture);
  ReadLayers(fields, family, config);
  // What depends on a size is read only once the size is known to be one.
  TESSERA_RETURN_IF_ERROR(fields.status());
  ReadAttention(fields, config);
  if (family.attention == AttentionKind::kMlaDsa) {
    ReadIndexer(fields, family, config);
  }
  config.rope.theta = fields.Number("rope_theta", kThetaRange, 10000.0);
  TESSERA_ASSIGN_OR_RETURN(config.rope.yarn, ReadYarn(fields, /*has_mscale=*/true));
  if (family.residual == ResidualKind::kHyperConnections) {
    ReadHyperConnections(fields, config.hyper);
  }
  fields.Choice("scoring_func", {"sigmoid"}, 0);
  ReadExperts(fields, config);
  TESSERA_RETURN_IF_ERROR(ReadFormats(fields, family, config));
  config.draft_moe = config.moe;
  ReadStopTokens(fields, config);
  TESSERA_RETURN_IF_ERROR(fields.status());
  if (family.has_engram) {
    TESSERA_RETURN_IF_ERROR(ReadEngram(fields, std::nullopt, config));
  }
  return config;
}

}  // namespace

absl::StatusOr<ModelConfig> ReadV3(const nlohmann::json& document) {
  return Read(document, kV3);
}

absl::StatusOr<ModelConfig> ReadV32(const nlohmann::json& document) {
  return Read(document, kV32);
}

absl::StatusOr<ModelConfig> ReadV4Mla(const nlohmann::json& document) {
  return Read(document, kV4Mla);
}

}  // namespace tessera::model
