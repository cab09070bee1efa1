#include "model/config/shared_fields.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
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

#include "common/status.h"
#include "common/status_macros.h"
#include "model/config/bucket_primes.h"
#include "model/config/json_fields.h"
#include "model/config/model_config.h"
#include "model/formats/dtype.h"

namespace tessera::model {
namespace {

constexpr int64_t kMaxExpertsOverall = int64_t{1} << 18;
constexpr int64_t kMaxEngramColumns = 4096;  // over all layers
constexpr size_t kMaxEngramLayers = 64;
constexpr size_t kMaxStopTokens = 64;
constexpr int64_t kMxfp4Group = 32;

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

EngramContract ReadContract(JsonFields& fields, std::optional<EngramContract> contract) {
  if (contract == EngramContract::kV41) {
    fields.Choice("engram_contract", {"v41"}, 0);
    return EngramContract::kV41;
  }
  return fields.Choice("engram_contract", {"demo", "v41"}) == 0 ? EngramContract::kDemo
                                                                : EngramContract::kV41;
}

void ReadEngramSizes(JsonFields& fields, const ModelConfig& config,
                     EngramConfig& engram) {
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

}  // namespace

void RefuseOfAnotherFamily(JsonFields& fields,
                           std::initializer_list<std::string_view> names) {
  for (const std::string_view name : names) {
    fields.Refuse(name, "it belongs to another family");
  }
}

void CheckArchitecture(JsonFields& fields, std::string_view architecture) {
  const nlohmann::json* architectures = fields.Find("architectures");
  if (architectures != nullptr &&
      *architectures != nlohmann::json::array({std::string(architecture)})) {
    fields.Fault("architectures", fmt::format("is not [\"{}\"]", architecture));
  }
}

void ReadSizes(JsonFields& fields, ModelConfig& config) {
  config.vocab_size = fields.Int("vocab_size", kVocabularyRange);
  config.hidden_size = fields.Int("hidden_size", kHiddenRange);
  config.num_layers = fields.Int("num_hidden_layers", kLayerRange);
  config.max_positions = fields.Int("max_position_embeddings", kPositionRange);
  config.rms_norm_eps = fields.Number("rms_norm_eps", kEpsilonRange, 1e-6);
  fields.Choice("hidden_act", {"silu"}, 0);
}

absl::StatusOr<std::optional<YarnConfig>> ReadYarn(JsonFields& fields, bool has_mscale) {
  const nlohmann::json* json = fields.Find("rope_scaling");
  if (json == nullptr) {
    return std::nullopt;
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
      scaling.Int("original_max_position_embeddings", kPositionRange);
  yarn.beta_fast = scaling.Number("beta_fast", {1e-3, 1e6}, 32.0);
  yarn.beta_slow = scaling.Number("beta_slow", {1e-3, 1e6}, 1.0);
  if (!has_mscale) {
    RefuseOfAnotherFamily(scaling, {"mscale", "mscale_all_dim"});
    TESSERA_RETURN_IF_ERROR(scaling.status());
    return yarn;
  }
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
  return yarn;
}

void ReadHyperConnections(JsonFields& fields, HyperConnectionConfig& hyper) {
  hyper.num_streams = fields.Int("hc_mult", {2, 8}, 4);
  hyper.sinkhorn_iters = fields.Int("hc_sinkhorn_iters", {1, 1000}, 20);
  hyper.eps = fields.Number("hc_eps", kEpsilonRange, 1e-6);
}

void ReadExperts(JsonFields& fields, ModelConfig& config) {
  MoeConfig& moe = config.moe;
  moe.num_experts = fields.Int("n_routed_experts", kExpertRange);
  moe.experts_per_token = fields.Int("num_experts_per_tok", {1, moe.num_experts});
  moe.expert_width = fields.Int("moe_intermediate_size", kWidthRange);
  moe.num_shared_experts = fields.Int("n_shared_experts", {0, 64});
  moe.num_groups = fields.Int("n_group", {1, moe.num_experts}, 1);
  moe.top_groups = fields.Int("topk_group", {1, moe.num_groups}, 1);
  moe.normalize_weights = fields.Bool("norm_topk_prob", true);
  moe.scaling_factor = fields.Number("routed_scaling_factor", {1e-6, 1e6});
  fields.Choice("topk_method", {"noaux_tc"}, 0);
  CheckGroups(fields, moe);
  if (config.num_layers * moe.num_experts > kMaxExpertsOverall) {
    fields.Fault("n_routed_experts",
                 fmt::format("is {} in {} layers, expected at most {} experts in all",
                             moe.num_experts, config.num_layers, kMaxExpertsOverall));
  }
}

absl::StatusOr<std::optional<DType>> ReadQuantization(JsonFields& fields,
                                                      const QuantizationRules& rules,
                                                      ModelConfig& config) {
  const nlohmann::json* json = fields.Find("quantization_config");
  if (json == nullptr) {
    return std::nullopt;
  }
  JsonFields quantization(*json, "quantization_config.");
  if (!rules.names_expert_dtype) {
    RefuseOfAnotherFamily(quantization, {"expert_dtype"});
  }
  quantization.RefuseOthers({"quant_method", "fmt", "activation_scheme",
                             "weight_block_size", "scale_fmt", "expert_dtype"});
  quantization.Choice("quant_method", {"fp8"});
  if (rules.requires_fmt || quantization.Has("fmt")) {
    quantization.Choice("fmt", {"e4m3"});
  }
  quantization.Choice("activation_scheme", {"dynamic"});
  if (rules.requires_scale_format || quantization.Has("scale_fmt")) {
    quantization.Choice("scale_fmt", {"ue8m0"});
  }
  const std::vector<int64_t> block = quantization.Ints(
      "weight_block_size", {.values = {rules.block, rules.block}, .max_length = 2});
  if (block.size() != 2) {
    quantization.Fault(
        "weight_block_size",
        fmt::format("has not 2 entries, expected [{0}, {0}]", rules.block));
  }
  config.fp8_linears = true;
  config.weight_block = rules.block;
  std::optional<DType> experts;
  if (rules.names_expert_dtype) {
    experts = ReadExpertDType(quantization, config);
  }
  TESSERA_RETURN_IF_ERROR(quantization.status());
  return experts;
}

DType ReadExpertDType(JsonFields& fields, const ModelConfig& config) {
  constexpr std::array<DType, 3> kDTypes = {DType::kF8E4M3, DType::kFp4, DType::kBF16};
  return kDTypes[fields.Choice("expert_dtype", {"fp8", "fp4", "bf16"},
                               config.fp8_linears ? 0 : 2)];
}

void CheckExpertDType(JsonFields& fields, const ModelConfig& config) {
  const DType dtype = config.moe.expert_dtype;
  if (!config.fp8_linears && dtype != DType::kBF16) {
    fields.Fault("expert_dtype", "is not \"bf16\", which needs a quantization_config");
  }
  if (dtype == DType::kFp4 && (config.hidden_size % kMxfp4Group != 0 ||
                               config.moe.expert_width % kMxfp4Group != 0)) {
    fields.Fault("expert_dtype",
                 fmt::format("is \"fp4\", expected hidden_size {} and "
                             "moe_intermediate_size {} to be multiples of {}",
                             config.hidden_size, config.moe.expert_width, kMxfp4Group));
  }
}

absl::Status ReadEngram(JsonFields& fields, std::optional<EngramContract> contract,
                        ModelConfig& config) {
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
  engram.contract = ReadContract(fields, contract);
  ReadEngramSizes(fields, config, engram);
  TESSERA_RETURN_IF_ERROR(fields.status());
  TESSERA_RETURN_IF_ERROR(ReadEngramRows(fields, engram));
  config.engram = std::move(engram);
  return absl::OkStatus();
}

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

}  // namespace tessera::model
