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

// Appends the tensors of one model in the layout of DeepSeek-V4's own code (model.md 3.3,
// 9.4). `prefix` ends with a dot.
class Builder {
 public:
  Builder(const ModelConfig& config, EngramRowFormat engram_rows)
      : config_(config),
        attention_(config.compressed),
        engram_rows_(engram_rows),
        list_(config) {}

  std::vector<ExpectedTensor> Build();

 private:
  void AddTopLevel();
  void AddLayer(const std::string& prefix, int64_t layer);
  void AddAttention(const std::string& prefix, int64_t layer);
  void AddCompressor(const std::string& prefix, TensorKind kind, int64_t ratio,
                     int64_t dim);
  void AddIndexer(const std::string& prefix, int64_t layer);
  void AddMlp(const std::string& prefix, TensorKind kind, DType dtype, int64_t width);
  void AddMoe(const std::string& prefix, int64_t layer);
  void AddEngram(const std::string& prefix, int64_t rows);
  void AddMtp(const std::string& prefix);
  void AddDspark();
  void AddVision(const VisionConfig& vision);
  void AddUnread(const std::string& name, std::vector<int64_t> shape);

  // Both false for draft layers, which have no entries.
  bool makes_entries(int64_t layer) const {
    return layer < config_.num_layers &&
           attention_.kv_sources[static_cast<size_t>(layer)] == layer;
  }
  bool selects(int64_t layer) const {
    return layer < config_.num_layers &&
           attention_.index_sources[static_cast<size_t>(layer)] == layer;
  }

  const ModelConfig& config_;
  const CompressedAttentionConfig& attention_;
  const EngramRowFormat engram_rows_;
  TensorList list_;
};

void Builder::AddTopLevel() {
  const int64_t d = config_.hidden_size;
  list_.AddMatrix("embed", TensorKind::kEmbedding, DType::kBF16, config_.vocab_size, d);
  list_.AddNorm("norm", TensorKind::kNorm, d);
  list_.AddHeadMix("hc_head", '_');
  list_.AddMatrix("head", TensorKind::kHead, DType::kBF16, config_.vocab_size, d);
}

void Builder::AddCompressor(const std::string& prefix, TensorKind kind, int64_t ratio,
                            int64_t dim) {
  // The two halves of an overlapping entry have channels of their own.
  const int64_t channels = ratio == attention_.overlapping_ratio ? 2 * dim : dim;
  const int64_t d = config_.hidden_size;
  if (attention_.has_position_bias) {
    list_.Add(prefix + "ape", kind, StorageFormat::kF32, {ratio, channels});
  }
  list_.AddMatrix(prefix + "wkv", kind, DType::kBF16, channels, d);
  if (ratio > 1) {
    list_.AddMatrix(prefix + "wgate", kind, DType::kBF16, channels, d);
  }
  list_.AddNorm(prefix + "norm", kind, dim);
}

void Builder::AddIndexer(const std::string& prefix, int64_t layer) {
  constexpr TensorKind kKind = TensorKind::kIndexer;
  const IndexerConfig& indexer = config_.indexer;
  if (selects(layer)) {
    list_.AddLinear(prefix + "wq_b", kKind, indexer.num_heads * indexer.head_dim,
                    attention_.q_lora_rank);
    list_.AddMatrix(prefix + "weights_proj", kKind, DType::kBF16, indexer.num_heads,
                    config_.hidden_size);
  }
  if (!attention_.pools_index_keys && makes_entries(layer)) {
    list_.AddMatrix(prefix + "wk", kKind, DType::kBF16, indexer.head_dim,
                    attention_.head_dim);
    list_.AddNorm(prefix + "k_norm", kKind, indexer.head_dim);
  }
  if (attention_.pools_index_keys && selects(layer)) {
    AddCompressor(prefix + "compressor.", kKind,
                  attention_.ratios[static_cast<size_t>(layer)], indexer.head_dim);
  }
}

void Builder::AddAttention(const std::string& prefix, int64_t layer) {
  constexpr TensorKind kKind = TensorKind::kAttention;
  const int64_t d = config_.hidden_size;
  const int64_t width = attention_.num_heads * attention_.head_dim;
  const int64_t groups = attention_.num_output_groups;
  const int64_t rank = groups * attention_.output_rank;
  list_.Add(prefix + "attn_sink", kKind, StorageFormat::kF32, {attention_.num_heads});
  list_.AddLinear(prefix + "wq_a", kKind, attention_.q_lora_rank, d);
  list_.AddNorm(prefix + "q_norm", kKind, attention_.q_lora_rank);
  list_.AddLinear(prefix + "wq_b", kKind, width, attention_.q_lora_rank);
  list_.AddLinear(prefix + "wkv", kKind, attention_.head_dim, d);
  list_.AddNorm(prefix + "kv_norm", kKind, attention_.head_dim);
  list_.AddLinear(prefix + "wo_a", kKind, rank, width / groups);
  list_.AddLinear(prefix + "wo_b", kKind, d, rank);
  if (makes_entries(layer)) {
    AddCompressor(prefix + "compressor.", TensorKind::kCompressor,
                  attention_.ratios[static_cast<size_t>(layer)], attention_.head_dim);
  }
  AddIndexer(prefix + "indexer.", layer);
}

void Builder::AddMlp(const std::string& prefix, TensorKind kind, DType dtype,
                     int64_t width) {
  list_.AddMatrix(prefix + "w1", kind, dtype, width, config_.hidden_size);
  list_.AddMatrix(prefix + "w3", kind, dtype, width, config_.hidden_size);
  list_.AddMatrix(prefix + "w2", kind, dtype, config_.hidden_size, width);
}

void Builder::AddMoe(const std::string& prefix, int64_t layer) {
  constexpr TensorKind kKind = TensorKind::kRouter;
  const MoeConfig& moe = config_.moe_of(layer);
  list_.AddMatrix(prefix + "gate", kKind, DType::kBF16, moe.num_experts,
                  config_.hidden_size);
  if (config_.is_hash_layer(layer)) {
    list_
        .Add(prefix + "gate.tid2eid", kKind, StorageFormat::kI64,
             {config_.vocab_size, moe.experts_per_token})
        .num_parameters = 0;
  } else {
    list_.Add(prefix + "gate.bias", kKind, StorageFormat::kF32, {moe.num_experts});
  }
  if (moe.has_image_bias) {
    list_.Add(prefix + "gate.bias_vl", kKind, StorageFormat::kF32, {moe.num_experts});
  }
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
}

void Builder::AddLayer(const std::string& prefix, int64_t layer) {
  list_.set_layer(layer);
  list_.AddNorm(prefix + "attn_norm", TensorKind::kNorm, config_.hidden_size);
  list_.AddNorm(prefix + "ffn_norm", TensorKind::kNorm, config_.hidden_size);
  list_.AddSublayerMix(prefix + "hc_attn", '_');
  list_.AddSublayerMix(prefix + "hc_ffn", '_');
  AddAttention(prefix + "attn.", layer);
  AddMoe(prefix + "ffn.", layer);
}

void Builder::AddMtp(const std::string& prefix) {
  constexpr TensorKind kKind = TensorKind::kDraft;
  const int64_t d = config_.hidden_size;
  list_.AddLinear(prefix + "e_proj", kKind, d, d);
  list_.AddLinear(prefix + "h_proj", kKind, d, d);
  for (const char* name : {"enorm", "hnorm", "norm"}) {
    list_.AddNorm(prefix + name, kKind, d);
  }
  list_.AddHeadMix(prefix + "hc_head", '_');
}

void Builder::AddDspark() {
  constexpr TensorKind kKind = TensorKind::kDraft;
  const DsparkConfig& dspark = *config_.dspark;
  const int64_t d = config_.hidden_size;
  const int64_t last = config_.num_draft_layers - 1;
  list_.set_layer(config_.num_layers);
  list_.AddLinear("mtp.0.main_proj", kKind, d,
                  d * static_cast<int64_t>(dspark.targets.size()));
  list_.AddNorm("mtp.0.main_norm", kKind, d);
  list_.set_layer(config_.num_layers + last);
  const std::string prefix = fmt::format("mtp.{}.", last);
  list_.AddNorm(prefix + "norm", kKind, d);
  list_.AddHeadMix(prefix + "hc_head", '_');
  list_.AddMatrix(fmt::format("{}{}", prefix, dspark.markov_embedding_name), kKind,
                  DType::kBF16, config_.vocab_size, dspark.markov_rank);
  list_.AddMatrix(fmt::format("{}{}", prefix, dspark.markov_head_name), kKind,
                  DType::kBF16, config_.vocab_size, dspark.markov_rank);
  list_.AddMatrix(prefix + "confidence_head.proj", kKind, DType::kBF16, 1,
                  d + dspark.markov_rank);
}

void Builder::AddUnread(const std::string& name, std::vector<int64_t> shape) {
  list_.Add(name, TensorKind::kVision, StorageFormat::kBf16, std::move(shape)).is_loaded =
      false;
}

// The tower of V4.1-Flash. Its sizes are counted as far as the config says them; nothing
// reads it.
void Builder::AddVision(const VisionConfig& vision) {
  const int64_t d = config_.hidden_size;
  const int64_t width = vision.hidden_size;
  const int64_t patch = 3 * vision.patch_size * vision.patch_size;
  const int64_t merged = width * vision.downsample_ratio * vision.downsample_ratio;
  list_.set_layer(-1);
  AddUnread("vision.patch_embed.proj.weight", {width, patch});
  AddUnread("vision.patch_embed.proj.bias", {width});
  for (int64_t layer = 0; layer < vision.num_layers; ++layer) {
    const std::string prefix = fmt::format("vision.blocks.{}.", layer);
    AddUnread(prefix + "norm1.weight", {width});
    AddUnread(prefix + "attn.wqkv.weight", {3 * width, width});
    AddUnread(prefix + "attn.wqkv.bias", {3 * width});
    AddUnread(prefix + "attn.wo.weight", {width, width});
    AddUnread(prefix + "attn.wo.bias", {width});
    AddUnread(prefix + "norm2.weight", {width});
    AddUnread(prefix + "mlp.w1.weight", {2 * vision.mlp_width, width});
    AddUnread(prefix + "mlp.w2.weight", {width, vision.mlp_width});
  }
  AddUnread("vision.norm.weight", {width});
  AddUnread("aligner.w1.weight", {d, merged});
  AddUnread("aligner.w1.bias", {d});
  AddUnread("aligner.w2.weight", {d, d});
  AddUnread("aligner.w2.bias", {d});
  for (const char* name : {"image_start", "image_end", "image_newline"}) {
    AddUnread(name, {d});
  }
}

std::vector<ExpectedTensor> Builder::Build() {
  AddTopLevel();
  size_t num_tables = 0;
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    const std::string prefix = fmt::format("layers.{}.", layer);
    AddLayer(prefix, layer);
    if (config_.is_engram_layer(layer)) {
      AddEngram(prefix, config_.engram->num_embeddings[num_tables++]);
    }
  }
  for (int64_t draft = 0; draft < config_.num_draft_layers; ++draft) {
    const std::string prefix = fmt::format("mtp.{}.", draft);
    AddLayer(prefix, config_.num_layers + draft);
    if (config_.draft == DraftKind::kMtpStreamsSplit) {
      AddMtp(prefix);
    }
  }
  if (config_.draft == DraftKind::kDspark) {
    AddDspark();
  }
  if (config_.vision.has_value()) {
    AddVision(*config_.vision);
  }
  return list_.Take();
}

}  // namespace

std::vector<ExpectedTensor> NativeInventory(const ModelConfig& config,
                                            EngramRowFormat engram_rows) {
  return Builder(config, engram_rows).Build();
}

// Copies of embedding and head that some files have inside draft layers.
bool IsSkippedNativeTensor(const ModelConfig& config, std::string_view name) {
  for (int64_t draft = 0; draft < config.num_draft_layers; ++draft) {
    const std::string prefix = fmt::format("mtp.{}.", draft);
    if (name.starts_with(prefix + "emb") || name == prefix + "head.weight") {
      return true;
    }
  }
  return false;
}

}  // namespace tessera::model
