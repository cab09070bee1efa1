#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "nlohmann/json.hpp"

#include "common/status_macros.h"
#include "model/config/families.h"
#include "model/config/json_fields.h"
#include "model/config/model_config.h"
#include "model/config/shared_fields.h"
#include "model/formats/dtype.h"

namespace tessera::model {
namespace {

constexpr int64_t kMaxDraftLayers = 8;
constexpr size_t kMaxTargets = 8;
constexpr int64_t kIndexQuantGroup = 32;
constexpr IntRange kBlockRange = {1, 64};  // tokens that a drafter makes at once

// A family: the choices of its forward pass and how its config and checkpoint differ.
struct CompressedFamily {
  std::string_view model_type;
  std::string_view architecture;
  std::string_view name;
  ResidualKind residual;
  IntRange ratios;  // powers of two; 0 too
  bool normalizes_heads;
  bool has_position_bias;
  bool pools_index_keys;
  int64_t overlapping_ratio;
  int64_t indexed_ratio_limit;
  int64_t window_quant_group;
  bool window_quant_covers_rope;
  int64_t entry_quant_group;
  bool entry_quant_is_fp4;
  bool applies_hadamard;
  bool has_hash_layers;
  bool has_image_bias;
  bool taps_inputs;
  std::string_view markov_embedding_name;
  std::string_view markov_head_name;
  QuantizationRules quantization;
};
constexpr CompressedFamily kV4 = {.model_type = "deepseek_v4",
                                  .architecture = "DeepseekV4ForCausalLM",
                                  .name = "v4",
                                  .residual = ResidualKind::kHyperConnections,
                                  .ratios = {4, 128},
                                  .normalizes_heads = true,
                                  .has_position_bias = true,
                                  .pools_index_keys = true,
                                  .overlapping_ratio = 4,
                                  .indexed_ratio_limit = 4,
                                  .window_quant_group = 64,
                                  .window_quant_covers_rope = false,
                                  .entry_quant_group = 64,
                                  .entry_quant_is_fp4 = false,
                                  .applies_hadamard = true,
                                  .has_hash_layers = true,
                                  .has_image_bias = false,
                                  .taps_inputs = false,
                                  .markov_embedding_name = "markov_head.markov_w1",
                                  .markov_head_name = "markov_head.markov_w2",
                                  .quantization = {.block = 128}};
constexpr CompressedFamily kV41 = {
    .model_type = "deepseek_v41",
    .architecture = "DeepseekV41ForCausalLM",
    .name = "v4.1",
    .residual = ResidualKind::kHyperHandOff,
    .ratios = {1, 2},
    .normalizes_heads = false,
    .has_position_bias = false,
    .pools_index_keys = false,
    .overlapping_ratio = 0,
    .indexed_ratio_limit = 2,
    .window_quant_group = 32,
    .window_quant_covers_rope = true,
    .entry_quant_group = 16,
    .entry_quant_is_fp4 = true,
    .applies_hadamard = false,
    .has_hash_layers = false,
    .has_image_bias = true,
    .taps_inputs = true,
    .markov_embedding_name = "markov_head.embed",
    .markov_head_name = "markov_head.head",
    .quantization = {.block = 32, .requires_fmt = false, .names_expert_dtype = true}};

void RefuseOtherFamilies(JsonFields& fields) {
  RefuseOfAnotherFamily(fields, {"attention_bias", "tie_word_embeddings", "kv_lora_rank",
                                 "qk_nope_head_dim", "v_head_dim", "intermediate_size",
                                 "first_k_dense_replace"});
  fields.Int("moe_layer_freq", {1, 1}, 1);
  fields.Int("n_group", {1, 1}, 1);
}

// ---- Drafts -------------------------------------------------------------------------

// How many layers `compress_ratios` has beyond the main ones: draft layers, of which
// num_nextn_predict_layers need not tell the whole number (V4-Flash-0731: 1 of 3).
void ReadDraftLayers(JsonFields& fields, ModelConfig& config) {
  const bool has_block_drafter = fields.Has("dspark_block_size");
  const int64_t named = fields.Int("num_nextn_predict_layers",
                                   {0, has_block_drafter ? kMaxDraftLayers : 1}, 0);
  const auto entries = static_cast<int64_t>(config.compressed.ratios.size());
  const int64_t extra = entries - config.num_layers;
  const int64_t most = has_block_drafter ? kMaxDraftLayers : named;
  if (extra < named || extra > most || (has_block_drafter && extra == 0)) {
    fields.Fault("compress_ratios",
                 fmt::format("has {} entries, expected {} layers and {} draft layers",
                             entries, config.num_layers,
                             has_block_drafter
                                 ? fmt::format("{} to {}", std::max<int64_t>(named, 1),
                                               kMaxDraftLayers)
                                 : fmt::format("{}", named)));
    return;
  }
  if (has_block_drafter && named > 1 && extra != named) {
    fields.Fault("num_nextn_predict_layers",
                 fmt::format("is {}, expected 1 or the {} draft layers that "
                             "compress_ratios has",
                             named, extra));
  }
  config.num_draft_layers = extra;
  for (int64_t draft = 0; draft < extra; ++draft) {
    const int64_t layer = config.num_layers + draft;
    if (config.compressed.ratios[static_cast<size_t>(layer)] != 0) {
      fields.Fault(
          "compress_ratios",
          fmt::format("is {} for draft layer {}, expected 0",
                      config.compressed.ratios[static_cast<size_t>(layer)], draft));
    }
  }
}

bool IsRising(const std::vector<int64_t>& list) {
  return std::adjacent_find(list.begin(), list.end(), std::greater_equal<>()) ==
         list.end();
}

void ReadDspark(JsonFields& fields, const CompressedFamily& family, ModelConfig& config) {
  DsparkConfig dspark;
  dspark.block_size = fields.Int("dspark_block_size", kBlockRange);
  dspark.noise_token_id = fields.Int("dspark_noise_token_id", {0, config.vocab_size - 1});
  dspark.markov_rank = fields.Int("dspark_markov_rank", kRankRange);
  dspark.taps_inputs = family.taps_inputs;
  dspark.markov_embedding_name = family.markov_embedding_name;
  dspark.markov_head_name = family.markov_head_name;
  dspark.targets =
      fields.Ints("dspark_target_layer_ids",
                  {.values = {0, config.num_layers - 1}, .max_length = kMaxTargets});
  if (dspark.targets.empty() || !IsRising(dspark.targets)) {
    fields.Fault("dspark_target_layer_ids",
                 fmt::format("is [{}], expected ascending layers without repeats",
                             fmt::join(dspark.targets, ", ")));
  }
  config.dspark = std::move(dspark);
}

void ReadDrafts(JsonFields& fields, const CompressedFamily& family, ModelConfig& config) {
  config.draft_moe = config.moe;
  config.draft_moe.num_experts =
      fields.Int("dspark_n_routed_experts", kExpertRange, config.moe.num_experts);
  config.draft_moe.experts_per_token =
      fields.Int("dspark_num_experts_per_tok", {1, config.draft_moe.num_experts},
                 std::min(config.moe.experts_per_token, config.draft_moe.num_experts));
  if (fields.Has("dspark_block_size")) {
    config.draft = DraftKind::kDspark;
    ReadDspark(fields, family, config);
    return;
  }
  RefuseOfAnotherFamily(
      fields, {"dspark_noise_token_id", "dspark_markov_rank", "dspark_target_layer_ids",
               "dspark_n_routed_experts", "dspark_num_experts_per_tok"});
  config.draft =
      config.num_draft_layers > 0 ? DraftKind::kMtpStreamsSplit : DraftKind::kNone;
}

// ---- Attention ----------------------------------------------------------------------

void CheckHeadDim(JsonFields& fields, const CompressedFamily& family,
                  const CompressedAttentionConfig& attention) {
  if (attention.rope_dim % 2 != 0 || attention.rope_dim > attention.head_dim) {
    fields.Fault("qk_rope_head_dim",
                 fmt::format("is {}, expected an even number of at most {}, the head_dim",
                             attention.rope_dim, attention.head_dim));
    return;
  }
  const int64_t window_values =
      attention.head_dim - (family.window_quant_covers_rope ? 0 : attention.rope_dim);
  if (window_values % family.window_quant_group != 0 ||
      (family.entry_quant_is_fp4 && attention.head_dim % family.entry_quant_group != 0)) {
    fields.Fault(
        "head_dim",
        fmt::format("is {} with {} rotary values, expected whole groups of {} "
                    "quantised values",
                    attention.head_dim, attention.rope_dim, family.window_quant_group));
  }
}

void ReadRatios(JsonFields& fields, const CompressedFamily& family,
                CompressedAttentionConfig& attention) {
  attention.ratios =
      fields.Ints("compress_ratios",
                  {.values = {0, family.ratios.max},
                   .max_length = static_cast<size_t>(kLayerRange.max + kMaxDraftLayers)});
  for (const int64_t ratio : attention.ratios) {
    const bool is_power = (ratio & (ratio - 1)) == 0;
    if (ratio != 0 && (!is_power || ratio < family.ratios.min)) {
      fields.Fault("compress_ratios",
                   fmt::format("has {}, expected 0 or a power of two from {} to {}",
                               ratio, family.ratios.min, family.ratios.max));
    }
  }
}

void ReadAttention(JsonFields& fields, const CompressedFamily& family,
                   ModelConfig& config) {
  CompressedAttentionConfig& attention = config.compressed;
  attention.normalizes_heads = family.normalizes_heads;
  attention.has_position_bias = family.has_position_bias;
  attention.pools_index_keys = family.pools_index_keys;
  attention.overlapping_ratio = family.overlapping_ratio;
  attention.indexed_ratio_limit = family.indexed_ratio_limit;
  attention.window_quant_group = family.window_quant_group;
  attention.window_quant_covers_rope = family.window_quant_covers_rope;
  attention.entry_quant_group = family.entry_quant_group;
  attention.entry_quant_is_fp4 = family.entry_quant_is_fp4;
  attention.num_heads = fields.Int("num_attention_heads", kHeadRange);
  // All heads share the keys, which are the values too.
  fields.Int("num_key_value_heads", {1, 1}, 1);
  attention.head_dim = fields.Int("head_dim", kHeadDimRange);
  attention.rope_dim = fields.Int("qk_rope_head_dim", kHeadDimRange);
  attention.q_lora_rank = fields.Int("q_lora_rank", kRankRange);
  attention.num_output_groups = fields.Int("o_groups", {1, attention.num_heads});
  attention.output_rank = fields.Int("o_lora_rank", kRankRange);
  attention.window = fields.Int("sliding_window", {1, int64_t{1} << 16});
  CheckHeadDim(fields, family, attention);
  if (attention.num_heads % attention.num_output_groups != 0) {
    fields.Fault("o_groups",
                 fmt::format("is {}, expected a divisor of the {} heads",
                             attention.num_output_groups, attention.num_heads));
  }
  ReadRatios(fields, family, attention);
}

void ReadIndexer(JsonFields& fields, const CompressedFamily& family,
                 ModelConfig& config) {
  IndexerConfig& indexer = config.indexer;
  indexer.rotates_tail = true;
  indexer.applies_hadamard = family.applies_hadamard;
  indexer.quant_group = kIndexQuantGroup;
  indexer.num_heads = fields.Int("index_n_heads", kHeadRange);
  indexer.head_dim = fields.Int("index_head_dim", kHeadDimRange);
  indexer.topk = fields.Int("index_topk", kPositionRange);
  const bool is_power = (indexer.head_dim & (indexer.head_dim - 1)) == 0;
  if (indexer.head_dim % kIndexQuantGroup != 0 ||
      (indexer.applies_hadamard && !is_power) ||
      indexer.head_dim < config.compressed.rope_dim) {
    fields.Fault(
        "index_head_dim",
        fmt::format(
            "is {}, expected a {} of at least {}, the rope dims", indexer.head_dim,
            indexer.applies_hadamard ? "power of two from 32 on" : "multiple of 32",
            config.compressed.rope_dim));
  }
}

// ---- Which layer's entries and selection a layer uses -------------------------------

// V4: every layer with entries makes its own.
void MakeOwnSources(const ModelConfig& config, CompressedAttentionConfig& attention) {
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const int64_t ratio = attention.ratios[static_cast<size_t>(layer)];
    attention.kv_sources.push_back(ratio > 0 ? layer : -1);
    attention.index_sources.push_back(
        ratio > 0 && ratio <= attention.indexed_ratio_limit ? layer : -1);
  }
}

// The sources that `field` names, spread over the layers: for each layer with entries the
// last source at or before it.
std::vector<int64_t> ReadSources(JsonFields& fields, std::string_view field,
                                 const ModelConfig& config) {
  const std::vector<int64_t> named =
      fields.Ints(field, {.values = {0, config.num_layers - 1},
                          .max_length = static_cast<size_t>(config.num_layers)});
  if (!IsRising(named)) {
    fields.Fault(field, fmt::format("is [{}], expected ascending layers without repeats",
                                    fmt::join(named, ", ")));
  }
  std::vector<int64_t> sources;
  auto next = named.begin();
  int64_t source = -1;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const int64_t ratio = config.compressed.ratios[static_cast<size_t>(layer)];
    if (next != named.end() && *next == layer) {
      source = *next++;
      if (ratio == 0) {
        fields.Fault(field, fmt::format("has {}, whose compress_ratios is 0", layer));
      }
    }
    if (ratio > 0 && source < 0) {
      fields.Fault(field, fmt::format("is [{}], expected a source at or before layer {}, "
                                      "whose compress_ratios is {}",
                                      fmt::join(named, ", "), layer, ratio));
    }
    sources.push_back(ratio > 0 ? source : -1);
  }
  return sources;
}

// A layer reads entries of its own ratio, and a selection among those very entries.
void CheckSources(JsonFields& fields, const CompressedAttentionConfig& attention) {
  for (size_t layer = 0; layer < attention.kv_sources.size(); ++layer) {
    const int64_t source = attention.kv_sources[layer];
    if (source < 0) {
      continue;
    }
    const int64_t ratio = attention.ratios[static_cast<size_t>(source)];
    if (ratio != attention.ratios[layer]) {
      fields.Fault(
          "kv_source_layer_ids",
          fmt::format("gives layer {} of ratio {} the entries of layer {} of ratio {}",
                      layer, attention.ratios[layer], source, ratio));
    }
    const int64_t selection = attention.index_sources[layer];
    if (selection >= 0 &&
        attention.kv_sources[static_cast<size_t>(selection)] != source) {
      fields.Fault("index_source_layer_ids",
                   fmt::format("gives layer {} the selection of layer {}, which is not "
                               "among the entries of layer {} that it reads",
                               layer, selection, source));
    }
  }
}

void ReadCandidates(JsonFields& fields, const ModelConfig& config,
                    CompressedAttentionConfig& attention) {
  attention.candidate_source =
      fields.Int("candidate_source_layer_id", {-1, config.num_layers - 1}, -1);
  if (attention.candidate_source < 0) {
    return;
  }
  attention.candidate_blocks = fields.Int("candidate_topk_blocks", kPositionRange);
  attention.candidate_block_size = fields.Int("candidate_block_size", {1, 4096});
  const auto source = static_cast<size_t>(attention.candidate_source);
  if (attention.index_sources[source] != attention.candidate_source) {
    fields.Fault("candidate_source_layer_id",
                 fmt::format("is {}, expected one of index_source_layer_ids",
                             attention.candidate_source));
  }
  for (size_t layer = source; layer < attention.kv_sources.size(); ++layer) {
    const bool selects = attention.index_sources[layer] == static_cast<int64_t>(layer);
    if (selects && attention.kv_sources[layer] != attention.kv_sources[source]) {
      fields.Fault("candidate_source_layer_id",
                   fmt::format("is {}, whose entries index source {} does not read",
                               attention.candidate_source, layer));
    }
  }
}

void ReadSharedSources(JsonFields& fields, const ModelConfig& config,
                       CompressedAttentionConfig& attention) {
  attention.kv_sources = ReadSources(fields, "kv_source_layer_ids", config);
  attention.index_sources = ReadSources(fields, "index_source_layer_ids", config);
  CheckSources(fields, attention);
  ReadCandidates(fields, config, attention);
}

// ---- Router and experts -------------------------------------------------------------

void ReadMoe(JsonFields& fields, const CompressedFamily& family, ModelConfig& config) {
  MoeConfig& moe = config.moe;
  moe.weights_before_down = true;
  moe.has_image_bias = family.has_image_bias;
  fields.Choice("scoring_func", {"sqrtsoftplus"}, 0);
  fields.Number("gate_temp", {1, 1}, 1.0);
  ReadExperts(fields, config);
  config.swiglu_limit = fields.Number("swiglu_limit", {0, 1e6}, 0.0);
  if (family.has_hash_layers) {
    config.num_hash_layers = fields.Int("num_hash_layers", {0, config.num_layers}, 0);
  } else {
    RefuseOfAnotherFamily(fields, {"num_hash_layers"});
  }
}

// ---- The document -------------------------------------------------------------------

// Everything of the text model but formats, sources and Engram.
absl::Status ReadText(JsonFields& fields, const CompressedFamily& family,
                      ModelConfig& config) {
  config.family = family.name;
  config.model_type = family.model_type;
  config.attention = AttentionKind::kCompressed;
  config.residual = family.residual;
  config.router = RouterKind::kSqrtSoftplus;
  config.names = TensorNames::kNative;
  config.scales_are_e8m0 = true;
  RefuseOtherFamilies(fields);
  ReadSizes(fields, config);
  // What depends on a size is read only once the size is known to be one.
  TESSERA_RETURN_IF_ERROR(fields.status());
  ReadAttention(fields, family, config);
  TESSERA_RETURN_IF_ERROR(fields.status());
  ReadIndexer(fields, family, config);
  ReadDraftLayers(fields, config);
  config.rope.theta = fields.Number("rope_theta", kThetaRange, 10000.0);
  config.compressed_rope.theta = fields.Number("compress_rope_theta", kThetaRange);
  TESSERA_ASSIGN_OR_RETURN(config.compressed_rope.yarn,
                           ReadYarn(fields, /*has_mscale=*/false));
  ReadHyperConnections(fields, config.hyper);
  ReadMoe(fields, family, config);
  TESSERA_RETURN_IF_ERROR(fields.status());
  ReadDrafts(fields, family, config);
  return fields.status();
}

VisionConfig ReadVision(JsonFields& fields) {
  VisionConfig vision;
  vision.num_layers = fields.Int("num_hidden_layers", kLayerRange);
  vision.hidden_size = fields.Int("hidden_size", kHiddenRange);
  vision.num_heads = fields.Int("num_attention_heads", kHeadRange);
  vision.mlp_width = fields.Int("intermediate_size", kWidthRange);
  vision.patch_size = fields.Int("patch_size", {1, 1024});
  vision.downsample_ratio = fields.Int("downsample_ratio", {1, 64});
  return vision;
}

void SetExpertDType(DType dtype, ModelConfig& config) {
  config.moe.expert_dtype = dtype;
  config.draft_moe.expert_dtype = dtype;
}

}  // namespace

absl::StatusOr<ModelConfig> ReadV4(const nlohmann::json& document) {
  JsonFields fields(document);
  ModelConfig config;
  RefuseOfAnotherFamily(
      fields, {"engram_layer_ids", "kv_source_layer_ids", "index_source_layer_ids",
               "candidate_source_layer_id", "dspark_n_routed_experts",
               "dspark_num_experts_per_tok", "text_config", "vision_config"});
  CheckArchitecture(fields, kV4.architecture);
  TESSERA_RETURN_IF_ERROR(ReadText(fields, kV4, config));
  MakeOwnSources(config, config.compressed);
  TESSERA_RETURN_IF_ERROR(ReadQuantization(fields, kV4.quantization, config).status());
  SetExpertDType(ReadExpertDType(fields, config), config);
  CheckExpertDType(fields, config);
  ReadStopTokens(fields, config);
  TESSERA_RETURN_IF_ERROR(fields.status());
  return config;
}

absl::StatusOr<ModelConfig> ReadV41(const nlohmann::json& document) {
  JsonFields root(document);
  ModelConfig config;
  CheckArchitecture(root, kV41.architecture);
  const nlohmann::json* json = root.Find("text_config");
  if (json == nullptr) {
    root.Fault("text_config", "is missing");
  }
  TESSERA_RETURN_IF_ERROR(root.status());
  JsonFields text(*json, "text_config.");
  text.Choice("model_type", {"deepseek_v41_text"}, 0);
  TESSERA_RETURN_IF_ERROR(ReadText(text, kV41, config));
  ReadSharedSources(text, config, config.compressed);
  TESSERA_RETURN_IF_ERROR(text.status());
  TESSERA_ASSIGN_OR_RETURN(const std::optional<DType> experts,
                           ReadQuantization(root, kV41.quantization, config));
  SetExpertDType(experts.value_or(DType::kBF16), config);
  CheckExpertDType(root, config);
  ReadStopTokens(root, config);
  if (root.Has("image_token_id")) {
    config.image_token_id =
        static_cast<int32_t>(root.Int("image_token_id", {0, config.vocab_size - 1}));
  }
  TESSERA_RETURN_IF_ERROR(root.status());
  if (const nlohmann::json* tower = root.Find("vision_config"); tower != nullptr) {
    JsonFields vision(*tower, "vision_config.");
    config.vision = ReadVision(vision);
    TESSERA_RETURN_IF_ERROR(vision.status());
  }
  TESSERA_RETURN_IF_ERROR(ReadEngram(text, EngramContract::kV41, config));
  return config;
}

}  // namespace tessera::model
