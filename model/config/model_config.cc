#include "model/config/model_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numbers>
#include <numeric>
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

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "model/config/bucket_primes.h"
#include "model/config/json_fields.h"
#include "model/config/strict_json.h"

namespace tessera::model {
namespace {

// Bounds of sanity, far above any model: below them every product of sizes fits 63 bits,
// and no config makes us enumerate more than about a million tensors.
constexpr IntRange kVocabulary = {1, int64_t{1} << 24};
constexpr IntRange kHidden = {1, int64_t{1} << 17};
constexpr IntRange kLayers = {1, 1024};
constexpr IntRange kWidth = {1, int64_t{1} << 20};
constexpr IntRange kRank = {1, int64_t{1} << 16};
constexpr IntRange kHeads = {1, 1024};
constexpr IntRange kHeadDim = {1, 8192};
constexpr IntRange kPositions = {1, int64_t{1} << 26};
constexpr IntRange kExperts = {1, 4096};
constexpr int64_t kMaxExpertsOverall = int64_t{1} << 18;
constexpr int64_t kMaxEngramColumns = 4096;  // over all layers
constexpr size_t kMaxEngramLayers = 64;
constexpr size_t kMaxStopTokens = 64;
constexpr NumberRange kEpsilon = {1e-30, 0.1};
constexpr int64_t kMxfp4Group = 32;

constexpr std::string_view kOfAnotherFamily = "it belongs to another family";

// A family: the choices of its forward pass and how its config and checkpoint differ.
struct Family {
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
constexpr std::array<Family, 3> kFamilies = {{
    {.model_type = "deepseek_v3",
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
     .needs_scale_format = false},
    {.model_type = "deepseek_v32",
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
     .needs_scale_format = true},
    {.model_type = "deepseek_v4_mla",
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
     .needs_scale_format = true},
}};

void ReadSizes(JsonFields& fields, const Family& family, ModelConfig& config) {
  config.vocab_size = fields.Int("vocab_size", kVocabulary);
  config.hidden_size = fields.Int("hidden_size", kHidden);
  config.num_layers = fields.Int("num_hidden_layers", kLayers);
  config.dense_width = fields.Int("intermediate_size", kWidth);
  config.num_dense_layers =
      fields.Int("first_k_dense_replace", {0, config.num_layers}, 0);
  fields.Int("moe_layer_freq", {1, 1}, 1);
  config.max_positions = fields.Int("max_position_embeddings", kPositions);
  config.rms_norm_eps = fields.Number("rms_norm_eps", kEpsilon, 1e-6);
  fields.Choice("hidden_act", {"silu"}, 0);
  config.num_draft_layers = fields.Int("num_nextn_predict_layers", {0, 1}, 0);
  config.draft = config.num_draft_layers > 0 ? family.draft : DraftKind::kNone;
  config.draft_has_copies = config.num_draft_layers > 0 && family.draft_has_copies;
}

void ReadAttention(JsonFields& fields, ModelConfig& config) {
  MlaConfig& mla = config.mla;
  mla.num_heads = fields.Int("num_attention_heads", kHeads);
  // Every head has keys and values of its own, made from the latent.
  fields.Int("num_key_value_heads", {mla.num_heads, mla.num_heads}, mla.num_heads);
  mla.q_lora_rank = fields.Int("q_lora_rank", kRank);
  mla.kv_lora_rank = fields.Int("kv_lora_rank", kRank);
  mla.qk_nope_head_dim = fields.Int("qk_nope_head_dim", kHeadDim);
  mla.qk_rope_head_dim = fields.Int("qk_rope_head_dim", kHeadDim);
  mla.v_head_dim = fields.Int("v_head_dim", kHeadDim);
  if (mla.qk_rope_head_dim % 2 != 0) {
    fields.Fault("qk_rope_head_dim",
                 fmt::format("is {}, expected an even number", mla.qk_rope_head_dim));
  }
}

void ReadIndexer(JsonFields& fields, const Family& family, ModelConfig& config) {
  if (family.attention != AttentionKind::kMlaDsa) {
    for (const std::string_view name :
         {"index_n_heads", "index_head_dim", "index_topk"}) {
      fields.Refuse(name, kOfAnotherFamily);
    }
    return;
  }
  IndexerConfig& indexer = config.indexer;
  indexer.quantizes_vectors = family.quantizes_index_vectors;
  indexer.allows_bf16_norm = family.allows_bf16_index_norm;
  indexer.num_heads = fields.Int("index_n_heads", kHeads);
  indexer.head_dim = fields.Int("index_head_dim", kHeadDim);
  indexer.topk = fields.Int("index_topk", kPositions);
  const bool is_power = (indexer.head_dim & (indexer.head_dim - 1)) == 0;
  if (!is_power || indexer.head_dim < config.mla.qk_rope_head_dim) {
    fields.Fault(
        "index_head_dim",
        fmt::format("is {}, expected a power of two of at least {}, the rope dims",
                    indexer.head_dim, config.mla.qk_rope_head_dim));
  }
}

absl::Status ReadRope(JsonFields& fields, RopeConfig& rope) {
  rope.theta = fields.Number("rope_theta", {1.001, 1e12}, 10000.0);
  const nlohmann::json* json = fields.Find("rope_scaling");
  if (json == nullptr) {
    return absl::OkStatus();
  }
  JsonFields scaling(*json, "rope_scaling.");
  scaling.RefuseOthers({"type", "rope_type", "factor", "original_max_position_embeddings",
                        "beta_fast", "beta_slow", "mscale", "mscale_all_dim"});
  scaling.Choice(scaling.Has("rope_type") && !scaling.Has("type") ? "rope_type" : "type",
                 {"yarn"});
  scaling.Choice("rope_type", {"yarn"}, 0);
  YarnConfig yarn;
  yarn.factor = scaling.Number("factor", {1, 1e6});
  yarn.original_max_positions =
      scaling.Int("original_max_position_embeddings", kPositions);
  yarn.beta_fast = scaling.Number("beta_fast", {1e-3, 1e6}, 32.0);
  yarn.beta_slow = scaling.Number("beta_slow", {1e-3, 1e6}, 1.0);
  yarn.mscale_all_dim = scaling.Number("mscale_all_dim", {0, 100}, 0.0);
  const double mscale = scaling.Number("mscale", {0, 100}, 0.0);
  TESSERA_RETURN_IF_ERROR(scaling.status());
  if (mscale != yarn.mscale_all_dim) {
    // Their ratio would scale cos and sin, which no checkpoint of the supported families
    // does.
    return StatusF(absl::StatusCode::kUnimplemented,
                   "rope_scaling.mscale is {}, expected {} as in mscale_all_dim", mscale,
                   yarn.mscale_all_dim);
  }
  rope.yarn = yarn;
  return absl::OkStatus();
}

void ReadResidual(JsonFields& fields, const Family& family,
                  HyperConnectionConfig& hyper) {
  if (family.residual != ResidualKind::kHyperConnections) {
    for (const std::string_view name : {"hc_mult", "hc_sinkhorn_iters", "hc_eps"}) {
      fields.Refuse(name, kOfAnotherFamily);
    }
    return;
  }
  hyper.num_streams = fields.Int("hc_mult", {2, 8}, 4);
  hyper.sinkhorn_iters = fields.Int("hc_sinkhorn_iters", {1, 1000}, 20);
  hyper.eps = fields.Number("hc_eps", kEpsilon, 1e-6);
}

void CheckGroups(JsonFields& fields, const MoeConfig& moe) {
  if (moe.num_experts % moe.num_groups != 0) {
    fields.Fault("n_group", fmt::format("is {}, expected a divisor of the {} experts",
                                        moe.num_groups, moe.num_experts));
    return;
  }
  const int64_t group_size = moe.num_experts / moe.num_groups;
  if (moe.num_groups > 1 && group_size < 2) {
    fields.Fault("n_group", fmt::format("is {}, expected groups of 2 experts or more",
                                        moe.num_groups));
  }
  if (moe.experts_per_token > moe.top_groups * group_size) {
    fields.Fault("topk_group",
                 fmt::format("is {}, expected groups that hold {} experts or more",
                             moe.top_groups, moe.experts_per_token));
  }
}

void ReadMoe(JsonFields& fields, ModelConfig& config) {
  MoeConfig& moe = config.moe;
  moe.num_experts = fields.Int("n_routed_experts", kExperts);
  moe.experts_per_token = fields.Int("num_experts_per_tok", {1, moe.num_experts});
  moe.expert_width = fields.Int("moe_intermediate_size", kWidth);
  moe.num_shared_experts = fields.Int("n_shared_experts", {0, 64});
  moe.num_groups = fields.Int("n_group", {1, moe.num_experts}, 1);
  moe.top_groups = fields.Int("topk_group", {1, moe.num_groups}, 1);
  moe.normalize_weights = fields.Bool("norm_topk_prob", true);
  moe.scaling_factor = fields.Number("routed_scaling_factor", {1e-6, 1e6});
  fields.Choice("scoring_func", {"sigmoid"}, 0);
  fields.Choice("topk_method", {"noaux_tc"}, 0);
  CheckGroups(fields, moe);
  if (config.num_layers * moe.num_experts > kMaxExpertsOverall) {
    fields.Fault("n_routed_experts",
                 fmt::format("is {} in {} layers, expected at most {} experts in all",
                             moe.num_experts, config.num_layers, kMaxExpertsOverall));
  }
}

absl::Status ReadFormats(JsonFields& fields, const Family& family, ModelConfig& config) {
  if (const nlohmann::json* json = fields.Find("quantization_config"); json != nullptr) {
    JsonFields quantization(*json, "quantization_config.");
    quantization.RefuseOthers(
        {"quant_method", "fmt", "activation_scheme", "weight_block_size", "scale_fmt"});
    quantization.Choice("quant_method", {"fp8"});
    quantization.Choice("fmt", {"e4m3"});
    quantization.Choice("activation_scheme", {"dynamic"});
    if (family.needs_scale_format || quantization.Has("scale_fmt")) {
      quantization.Choice("scale_fmt", {"ue8m0"});
    }
    const std::vector<int64_t> block =
        quantization.Ints("weight_block_size", {.values = {128, 128}, .max_length = 2});
    if (block.size() != 2) {
      quantization.Fault("weight_block_size", "has not 2 entries, expected [128, 128]");
    }
    TESSERA_RETURN_IF_ERROR(quantization.status());
    config.fp8_linears = true;
  }
  if (!family.names_expert_dtype) {
    fields.Refuse("expert_dtype", kOfAnotherFamily);
    config.moe.expert_dtype = config.fp8_linears ? DType::kF8E4M3 : DType::kBF16;
    return absl::OkStatus();
  }
  constexpr std::array<DType, 3> kDTypes = {DType::kF8E4M3, DType::kFp4, DType::kBF16};
  const size_t choice =
      fields.Choice("expert_dtype", {"fp8", "fp4", "bf16"}, config.fp8_linears ? 0 : 2);
  config.moe.expert_dtype = kDTypes[choice];
  if (!config.fp8_linears && config.moe.expert_dtype != DType::kBF16) {
    fields.Fault("expert_dtype", "is not \"bf16\", which needs a quantization_config");
  }
  if (config.moe.expert_dtype == DType::kFp4 &&
      (config.hidden_size % kMxfp4Group != 0 ||
       config.moe.expert_width % kMxfp4Group != 0)) {
    fields.Fault("expert_dtype",
                 fmt::format("is \"fp4\", expected hidden_size {} and "
                             "moe_intermediate_size {} to be multiples of {}",
                             config.hidden_size, config.moe.expert_width, kMxfp4Group));
  }
  return absl::OkStatus();
}

void ReadEngramSizes(JsonFields& fields, const ModelConfig& config,
                     EngramConfig& engram) {
  engram.contract = fields.Choice("engram_contract", {"demo", "v41"}) == 0
                        ? EngramContract::kDemo
                        : EngramContract::kV41;
  engram.max_ngram = fields.Int("engram_max_ngram_size", {2, 8});
  engram.num_heads = fields.Int("engram_n_heads", {1, 64});
  engram.head_dim = fields.Int("engram_head_dim", {1, 4096});
  engram.compressed_vocab_size =
      fields.Int("engram_compressed_vocab_size", {1, config.vocab_size});
  engram.pad_token_id = fields.Int("engram_pad_token_id", {0, config.vocab_size - 1});
  engram.seed =
      static_cast<uint64_t>(fields.Int("engram_seed", {0, int64_t{1} << 62}, 0));
  const size_t num_orders = static_cast<size_t>(engram.max_ngram - 1);
  engram.bucket_bases = fields.Ints(
      "engram_vocab_size",
      {.values = {2, int64_t{1} << 31}, .max_length = num_orders, .or_single = true});
  const nlohmann::json* bases = fields.Find("engram_vocab_size");
  if (bases == nullptr) {
    fields.Fault("engram_vocab_size", "is missing");
  } else if (!bases->is_array()) {
    engram.bucket_bases.resize(
        num_orders, engram.bucket_bases.empty() ? 2 : engram.bucket_bases.front());
  } else if (engram.bucket_bases.size() != num_orders) {
    fields.Fault("engram_vocab_size",
                 fmt::format("has {} entries, expected one for each of the {} orders",
                             engram.bucket_bases.size(), num_orders));
  }
  if (engram.num_columns() * static_cast<int64_t>(engram.layer_ids.size()) >
      kMaxEngramColumns) {
    fields.Fault("engram_n_heads",
                 fmt::format("gives more than {} columns in all", kMaxEngramColumns));
  }
}

// The rows of each table follow from the bases; where the config names them, it must
// agree.
absl::Status ReadEngramRows(JsonFields& fields, EngramConfig& engram) {
  const std::vector<int64_t> given = fields.Ints(
      "engram_num_embeddings",
      {.values = {1, (int64_t{1} << 32) - 1}, .max_length = kMaxEngramLayers});
  TESSERA_RETURN_IF_ERROR(fields.status());
  const auto primes = EngramBucketPrimes(engram);
  if (!primes.ok()) {
    return WithContext(primes.status(), "engram_vocab_size");
  }
  for (const std::vector<uint32_t>& layer : *primes) {
    engram.num_embeddings.push_back(
        std::accumulate(layer.begin(), layer.end(), int64_t{0}));
  }
  if (!given.empty() && given != engram.num_embeddings) {
    return InvalidArgumentF(
        "engram_num_embeddings is [{}], expected the sums of the primes [{}]",
        fmt::join(given, ", "), fmt::join(engram.num_embeddings, ", "));
  }
  return absl::OkStatus();
}

absl::Status ReadEngram(JsonFields& fields, const Family& family, ModelConfig& config) {
  if (!family.has_engram) {
    fields.Refuse("engram_layer_ids", kOfAnotherFamily);
    return fields.status();
  }
  EngramConfig engram;
  engram.layer_ids =
      fields.Ints("engram_layer_ids",
                  {.values = {0, config.num_layers - 1}, .max_length = kMaxEngramLayers});
  TESSERA_RETURN_IF_ERROR(fields.status());
  if (engram.layer_ids.empty()) {
    return absl::OkStatus();
  }
  if (std::adjacent_find(engram.layer_ids.begin(), engram.layer_ids.end(),
                         std::greater_equal<>()) != engram.layer_ids.end()) {
    fields.Fault("engram_layer_ids",
                 fmt::format("is [{}], expected ascending layers without repeats",
                             fmt::join(engram.layer_ids, ", ")));
  }
  ReadEngramSizes(fields, config, engram);
  TESSERA_RETURN_IF_ERROR(fields.status());
  TESSERA_RETURN_IF_ERROR(ReadEngramRows(fields, engram));
  config.engram = std::move(engram);
  return absl::OkStatus();
}

// Reads eos_token_id and bos_token_id where they are.
void ReadStopTokens(JsonFields& fields, ModelConfig& config) {
  const IntRange ids = {0, config.vocab_size - 1};
  const std::vector<int64_t> eos = fields.Ints(
      "eos_token_id", {.values = ids, .max_length = kMaxStopTokens, .or_single = true});
  if (fields.Has("eos_token_id")) {
    config.eos_token_ids.clear();
    for (const int64_t id : eos) {
      config.eos_token_ids.push_back(static_cast<int32_t>(id));
    }
  }
  if (fields.Has("bos_token_id")) {
    config.bos_token_id = static_cast<int32_t>(fields.Int("bos_token_id", ids));
  }
}

void RefuseOtherFamilies(JsonFields& fields, const Family& family) {
  for (const std::string_view name :
       {"swiglu_limit", "attention_bias", "tie_word_embeddings", "num_hash_layers",
        "sliding_window", "compress_ratios", "compress_rope_theta", "o_groups",
        "o_lora_rank", "dspark_block_size"}) {
    fields.Refuse(name, kOfAnotherFamily);
  }
  const nlohmann::json* architectures = fields.Find("architectures");
  if (architectures != nullptr &&
      *architectures != nlohmann::json::array({std::string(family.architecture)})) {
    fields.Fault("architectures", fmt::format("is not [\"{}\"]", family.architecture));
  }
}

absl::StatusOr<ModelConfig> ReadFamily(const nlohmann::json& json, const Family& family) {
  JsonFields fields(json);
  ModelConfig config;
  config.family = family.name;
  config.model_type = family.model_type;
  config.attention = family.attention;
  config.residual = family.residual;
  RefuseOtherFamilies(fields, family);
  ReadSizes(fields, family, config);
  // What depends on a size is read only once the size is known to be one.
  TESSERA_RETURN_IF_ERROR(fields.status());
  ReadAttention(fields, config);
  ReadIndexer(fields, family, config);
  TESSERA_RETURN_IF_ERROR(ReadRope(fields, config.rope));
  ReadResidual(fields, family, config.hyper);
  ReadMoe(fields, config);
  TESSERA_RETURN_IF_ERROR(ReadFormats(fields, family, config));
  ReadStopTokens(fields, config);
  TESSERA_RETURN_IF_ERROR(fields.status());
  TESSERA_RETURN_IF_ERROR(ReadEngram(fields, family, config));
  return config;
}

struct OtherFamily {
  std::string_view model_type;
  std::string_view family;
};
constexpr std::array<OtherFamily, 2> kOtherFamilies = {
    {{"deepseek_v4", "V4"}, {"deepseek_v41", "V4.1"}}};
constexpr std::string_view kModelTypes = "deepseek_v3, deepseek_v32 or deepseek_v4_mla";

}  // namespace

bool ModelConfig::is_engram_layer(int64_t layer) const {
  return engram.has_value() &&
         std::binary_search(engram->layer_ids.begin(), engram->layer_ids.end(), layer);
}

double ModelConfig::softmax_scale() const {
  const double width = static_cast<double>(mla.qk_nope_head_dim + mla.qk_rope_head_dim);
  double scale = 1.0 / std::sqrt(width);
  if (rope.yarn.has_value() && rope.yarn->mscale_all_dim != 0) {
    const double mscale =
        0.1 * rope.yarn->mscale_all_dim * std::log(rope.yarn->factor) + 1.0;
    scale *= mscale * mscale;
  }
  return scale;
}

absl::StatusOr<ModelConfig> ParseModelConfig(std::string_view json) {
  TESSERA_ASSIGN_OR_RETURN(const nlohmann::json document, ParseStrictJson(json));
  JsonFields fields(document);
  TESSERA_RETURN_IF_ERROR(fields.status());
  const nlohmann::json* type = fields.Find("model_type");
  if (type == nullptr || !type->is_string()) {
    return InvalidArgumentF("model_type is missing or no text, expected {}", kModelTypes);
  }
  const std::string& model_type = type->get_ref<const std::string&>();
  for (const Family& family : kFamilies) {
    if (model_type == family.model_type) {
      return ReadFamily(document, family);
    }
  }
  for (const OtherFamily& other : kOtherFamilies) {
    if (model_type == other.model_type) {
      return StatusF(absl::StatusCode::kUnimplemented,
                     "model_type {} is of the family {}, which this build does not run; "
                     "expected {}",
                     other.model_type, other.family, kModelTypes);
    }
  }
  return InvalidArgumentF("model_type is \"{}\", expected {}", model_type.substr(0, 60),
                          kModelTypes);
}

absl::StatusOr<ModelConfig> LoadModelConfig(const std::string& directory) {
  constexpr size_t kMaxBytes = StrictJsonLimits{}.bytes;
  const std::string path = directory + "/config.json";
  TESSERA_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path, kMaxBytes));
  absl::StatusOr<ModelConfig> config = ParseModelConfig(text);
  if (!config.ok()) {
    return WithContext(config.status(), path);
  }
  const std::string generation_path = directory + "/generation_config.json";
  const absl::StatusOr<std::string> generation =
      ReadSmallFile(generation_path, kMaxBytes);
  if (generation.status().code() == absl::StatusCode::kNotFound) {
    return config;
  }
  TESSERA_RETURN_IF_ERROR(generation.status());
  const absl::StatusOr<nlohmann::json> document = ParseStrictJson(*generation);
  if (!document.ok()) {
    return WithContext(document.status(), generation_path);
  }
  JsonFields fields(*document);
  ReadStopTokens(fields, *config);
  if (!fields.status().ok()) {
    return WithContext(fields.status(), generation_path);
  }
  return config;
}

std::vector<float> RopeInverseFrequencies(const RopeConfig& rope, int64_t rope_dim) {
  TESSERA_CHECK(rope_dim > 0 && rope_dim % 2 == 0);
  const double dims = static_cast<double>(rope_dim);
  double low = 0;
  double high = 0;
  if (rope.yarn.has_value()) {
    // The dimension whose wave turns `turns` times over the original context.
    const auto dim_of = [&](double turns) {
      const double length = static_cast<double>(rope.yarn->original_max_positions);
      return dims * std::log(length / (2 * std::numbers::pi * turns)) /
             (2 * std::log(rope.theta));
    };
    low = std::max(std::floor(dim_of(rope.yarn->beta_fast)), 0.0);
    high = std::min(std::ceil(dim_of(rope.yarn->beta_slow)), dims - 1);
  }
  std::vector<float> frequencies;
  for (int64_t i = 0; i < rope_dim / 2; ++i) {
    const double index = static_cast<double>(i);
    const auto exponent = static_cast<float>(2 * index / dims);
    const auto wavelength =
        static_cast<float>(std::pow(static_cast<double>(static_cast<float>(rope.theta)),
                                    static_cast<double>(exponent)));
    float frequency = 1.0F / wavelength;
    if (rope.yarn.has_value()) {
      const auto ramp = static_cast<float>(
          std::clamp((index - low) / std::max(high - low, 0.001), 0.0, 1.0));
      const float divided = frequency / static_cast<float>(rope.yarn->factor);
      frequency = divided * ramp + frequency * (1 - ramp);
    }
    frequencies.push_back(frequency);
  }
  return frequencies;
}

}  // namespace tessera::model
