#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "fmt/format.h"

#include "model/config/model_config.h"
#include "model/formats/dtype.h"
#include "model/tensors/layout_inventories.h"
#include "model/tensors/tensor_inventory.h"
#include "model/tensors/tensor_list.h"

namespace tessera::model {
namespace {

// Appends the tensors of one model. The methods follow the tables of the family's
// definition from top to bottom; `prefix` ends with a dot.
class Builder {
 public:
  Builder(const ModelConfig& config, EngramRowFormat engram_rows)
      : config_(config), engram_rows_(engram_rows), list_(config) {}

  std::vector<ExpectedTensor> Build();

 private:
  void AddTopLevel();
  void AddLayer(int64_t layer);
  void AddAttention(const std::string& prefix);
  void AddIndexer(const std::string& prefix);
  void AddMlp(const std::string& prefix, TensorKind kind, DType dtype, int64_t width);
  void AddMoe(const std::string& prefix);
  void AddEngram(const std::string& prefix, int64_t rows);
  void AddDraft(const std::string& prefix);

  const ModelConfig& config_;
  const EngramRowFormat engram_rows_;
  TensorList list_;
};

void Builder::AddTopLevel() {
  const int64_t d = config_.hidden_size;
  if (config_.engram.has_value()) {
    ExpectedTensor& map = list_.Add("engram.compressed_ids", TensorKind::kEngramMap,
                                    StorageFormat::kI32, {config_.vocab_size});
    map.num_parameters = 0;
    map.rows_are_limit = true;
  }
  list_.Add("model.embed_tokens.weight", TensorKind::kEmbedding, StorageFormat::kBf16,
            {config_.vocab_size, d});
  list_.Add("model.norm.weight", TensorKind::kNorm, StorageFormat::kBf16, {d});
  list_.AddHeadMix("model.hc_head", '.');
  list_.Add("lm_head.weight", TensorKind::kHead, StorageFormat::kBf16,
            {config_.vocab_size, d});
}

void Builder::AddAttention(const std::string& prefix) {
  constexpr TensorKind kKind = TensorKind::kAttention;
  const MlaConfig& mla = config_.mla;
  const int64_t d = config_.hidden_size;
  const int64_t h = mla.num_heads;
  list_.AddLinear(prefix + "q_a_proj", kKind, mla.q_lora_rank, d);
  list_.Add(prefix + "q_a_layernorm.weight", kKind, StorageFormat::kBf16,
            {mla.q_lora_rank});
  list_.AddLinear(prefix + "q_b_proj", kKind,
                  h * (mla.qk_nope_head_dim + mla.qk_rope_head_dim), mla.q_lora_rank);
  list_.AddLinear(prefix + "kv_a_proj_with_mqa", kKind,
                  mla.kv_lora_rank + mla.qk_rope_head_dim, d);
  list_.Add(prefix + "kv_a_layernorm.weight", kKind, StorageFormat::kBf16,
            {mla.kv_lora_rank});
  list_.AddLinear(prefix + "kv_b_proj", kKind,
                  h * (mla.qk_nope_head_dim + mla.v_head_dim), mla.kv_lora_rank);
  list_.AddLinear(prefix + "o_proj", kKind, d, h * mla.v_head_dim);
  if (config_.attention == AttentionKind::kMlaDsa) {
    AddIndexer(prefix + "indexer.");
  }
}

void Builder::AddIndexer(const std::string& prefix) {
  constexpr TensorKind kKind = TensorKind::kIndexer;
  const IndexerConfig& indexer = config_.indexer;
  list_.AddLinear(prefix + "wq_b", kKind, indexer.num_heads * indexer.head_dim,
                  config_.mla.q_lora_rank);
  list_.AddLinear(prefix + "wk", kKind, indexer.head_dim, config_.hidden_size);
  for (const char* name : {"k_norm.weight", "k_norm.bias"}) {
    list_.Add(prefix + name, kKind, StorageFormat::kF32, {indexer.head_dim}).allows_bf16 =
        indexer.allows_bf16_norm;
  }
  list_.Add(prefix + "weights_proj.weight", kKind, StorageFormat::kBf16,
            {indexer.num_heads, config_.hidden_size});
}

void Builder::AddMlp(const std::string& prefix, TensorKind kind, DType dtype,
                     int64_t width) {
  list_.AddMatrix(prefix + "gate_proj", kind, dtype, width, config_.hidden_size);
  list_.AddMatrix(prefix + "up_proj", kind, dtype, width, config_.hidden_size);
  list_.AddMatrix(prefix + "down_proj", kind, dtype, config_.hidden_size, width);
}

void Builder::AddMoe(const std::string& prefix) {
  const MoeConfig& moe = config_.moe;
  list_.Add(prefix + "gate.weight", TensorKind::kRouter, StorageFormat::kBf16,
            {moe.num_experts, config_.hidden_size});
  list_.Add(prefix + "gate.e_score_correction_bias", TensorKind::kRouter,
            StorageFormat::kF32, {moe.num_experts});
  for (int64_t expert = 0; expert < moe.num_experts; ++expert) {
    AddMlp(fmt::format("{}experts.{}.", prefix, expert), TensorKind::kRoutedExpert,
           moe.expert_dtype, moe.expert_width);
  }
  if (moe.num_shared_experts > 0) {
    AddMlp(prefix + "shared_experts.", TensorKind::kSharedExpert, list_.linear_dtype(),
           moe.num_shared_experts * moe.expert_width);
  }
}

void Builder::AddEngram(const std::string& prefix, int64_t rows) {
  constexpr TensorKind kKind = TensorKind::kEngramFusion;
  const EngramConfig& engram = *config_.engram;
  const int64_t d = config_.hidden_size;
  const int64_t streams = config_.num_streams();
  list_.AddEngramRows(prefix + "engram", engram_rows_, rows);
  list_.AddLinear(prefix + "engram.wkv", kKind, (streams + 1) * d,
                  engram.num_columns() * engram.head_dim);
  list_.Add(prefix + "engram.q_weight", kKind, StorageFormat::kBf16, {streams, d});
  list_.Add(prefix + "engram.k_weight", kKind, StorageFormat::kBf16, {streams, d});
  if (engram.contract == EngramContract::kDemo) {
    list_.Add(prefix + "engram.conv.weight", kKind, StorageFormat::kBf16,
              {streams * d, 4});
    list_.Add(prefix + "engram.conv_norm.weight", kKind, StorageFormat::kBf16,
              {streams, d});
  }
}

void Builder::AddDraft(const std::string& prefix) {
  constexpr TensorKind kKind = TensorKind::kDraft;
  const int64_t d = config_.hidden_size;
  for (const char* name : {"enorm", "hnorm", "shared_head.norm"}) {
    list_.Add(fmt::format("{}{}.weight", prefix, name), kKind, StorageFormat::kBf16, {d});
  }
  list_.Add(prefix + "eh_proj.weight", kKind, StorageFormat::kBf16, {d, 2 * d});
  list_.AddHeadMix(prefix + "hc_head", '.');
  if (config_.draft_has_copies) {
    list_.Add(prefix + "embed_tokens.weight", kKind, StorageFormat::kBf16,
              {config_.vocab_size, d});
    list_.Add(prefix + "shared_head.head.weight", kKind, StorageFormat::kBf16,
              {config_.vocab_size, d});
  }
}

void Builder::AddLayer(int64_t layer) {
  list_.set_layer(layer);
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  const int64_t d = config_.hidden_size;
  list_.Add(prefix + "input_layernorm.weight", TensorKind::kNorm, StorageFormat::kBf16,
            {d});
  list_.Add(prefix + "post_attention_layernorm.weight", TensorKind::kNorm,
            StorageFormat::kBf16, {d});
  list_.AddSublayerMix(prefix + "hc_attn", '.');
  list_.AddSublayerMix(prefix + "hc_ffn", '.');
  AddAttention(prefix + "self_attn.");
  if (config_.is_dense_layer(layer)) {
    AddMlp(prefix + "mlp.", TensorKind::kDenseMlp, list_.linear_dtype(),
           config_.dense_width);
  } else {
    AddMoe(prefix + "mlp.");
  }
}

std::vector<ExpectedTensor> Builder::Build() {
  AddTopLevel();
  size_t num_tables = 0;
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    AddLayer(layer);
    if (config_.is_engram_layer(layer)) {
      AddEngram(fmt::format("model.layers.{}.", layer),
                config_.engram->num_embeddings[num_tables++]);
    }
  }
  for (int64_t draft = 0; draft < config_.num_draft_layers; ++draft) {
    AddLayer(config_.num_layers + draft);
    AddDraft(fmt::format("model.layers.{}.", config_.num_layers + draft));
  }
  return list_.Take();
}

}  // namespace

std::vector<ExpectedTensor> HuggingFaceInventory(const ModelConfig& config,
                                                 EngramRowFormat engram_rows) {
  return Builder(config, engram_rows).Build();
}

bool IsSkippedHuggingFaceTensor(const ModelConfig& config, std::string_view name) {
  for (int64_t draft = 0; draft < config.num_draft_layers; ++draft) {
    const std::string prefix = fmt::format("model.layers.{}.", config.num_layers + draft);
    if (name == prefix + "embed_tokens.weight" ||
        name == prefix + "shared_head.head.weight") {
      return true;
    }
  }
  return false;
}

}  // namespace tessera::model
