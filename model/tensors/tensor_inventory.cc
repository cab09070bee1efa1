#include "model/tensors/tensor_inventory.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fmt/format.h"

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "model/tensors/safetensors_header.h"

namespace tessera::model {
namespace {

constexpr int64_t kScaleGroup = 32;

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Appends the tensors of one model. The methods follow the tables of the family's
// definition from top to bottom; `prefix` ends with a dot.
class InventoryBuilder {
 public:
  InventoryBuilder(const ModelConfig& config, EngramRowFormat engram_rows)
      : config_(config), engram_rows_(engram_rows) {}

  std::vector<ExpectedTensor> Build();

 private:
  void Add(std::string name, TensorKind kind, StorageFormat format,
           std::vector<int64_t> shape);
  void AddScale(std::string name, TensorKind kind, StorageFormat format,
                std::vector<int64_t> shape);
  void AddMatrix(const std::string& name, TensorKind kind, DType dtype, int64_t out,
                 int64_t in);
  // A linear in the model's own format.
  void AddLinear(const std::string& name, TensorKind kind, int64_t out, int64_t in) {
    AddMatrix(name, kind, config_.fp8_linears ? DType::kF8E4M3 : DType::kBF16, out, in);
  }
  void AddMix(const std::string& prefix, int64_t rows, int64_t num_scales);
  // The mixes of a sublayer and of a head, where the residual has any.
  void AddSublayerMix(const std::string& prefix);
  void AddHeadMix(const std::string& prefix);

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
  int64_t layer_ = -1;
  std::vector<ExpectedTensor> tensors_;
};

DType DTypeOf(StorageFormat format) {
  constexpr std::array<DType, kNumStorageFormats> kDTypes = {
      DType::kF32, DType::kBF16, DType::kF8E4M3, DType::kI8, DType::kF8E4M3, DType::kI32};
  return kDTypes[static_cast<size_t>(format)];
}

void InventoryBuilder::Add(std::string name, TensorKind kind, StorageFormat format,
                           std::vector<int64_t> shape) {
  int64_t elements = 1;
  for (const int64_t dimension : shape) {
    elements *= dimension;
  }
  tensors_.push_back(
      {.name = std::move(name),
       .kind = kind,
       .format = format,
       .layer = layer_,
       .dtype = DTypeOf(format),
       .shape = std::move(shape),
       .num_parameters = format == StorageFormat::kMxfp4 ? 2 * elements : elements});
}

void InventoryBuilder::AddScale(std::string name, TensorKind kind, StorageFormat format,
                                std::vector<int64_t> shape) {
  Add(std::move(name), kind, format, std::move(shape));
  tensors_.back().num_parameters = 0;
  tensors_.back().dtype =
      format == StorageFormat::kFp8Blocks ? DType::kF32 : DType::kF8E8M0;
}

void InventoryBuilder::AddMatrix(const std::string& name, TensorKind kind, DType dtype,
                                 int64_t out, int64_t in) {
  const std::string weight = name + ".weight";
  if (dtype == DType::kF8E4M3) {
    Add(weight, kind, StorageFormat::kFp8Blocks, {out, in});
    AddScale(
        weight + "_scale_inv", kind, StorageFormat::kFp8Blocks,
        {CeilDivide(out, config_.weight_block), CeilDivide(in, config_.weight_block)});
  } else if (dtype == DType::kFp4) {
    Add(weight, kind, StorageFormat::kMxfp4, {out, in / 2});
    AddScale(name + ".scale", kind, StorageFormat::kMxfp4, {out, in / kScaleGroup});
  } else {
    Add(weight, kind, StorageFormat::kBf16, {out, in});
  }
}

void InventoryBuilder::AddMix(const std::string& prefix, int64_t rows,
                              int64_t num_scales) {
  constexpr TensorKind kKind = TensorKind::kHyperConnection;
  const int64_t width = config_.num_streams() * config_.hidden_size;
  Add(prefix + ".fn", kKind, StorageFormat::kF32, {rows, width});
  Add(prefix + ".base", kKind, StorageFormat::kF32, {rows});
  Add(prefix + ".scale", kKind, StorageFormat::kF32, {num_scales});
}

void InventoryBuilder::AddSublayerMix(const std::string& prefix) {
  if (config_.residual == ResidualKind::kHyperConnections) {
    const int64_t streams = config_.num_streams();
    AddMix(prefix, streams * (streams + 2), 3);
  }
}

void InventoryBuilder::AddHeadMix(const std::string& prefix) {
  if (config_.residual == ResidualKind::kHyperConnections) {
    AddMix(prefix, config_.num_streams(), 1);
  }
}

void InventoryBuilder::AddTopLevel() {
  const int64_t d = config_.hidden_size;
  if (config_.engram.has_value()) {
    Add("engram.compressed_ids", TensorKind::kEngramMap, StorageFormat::kI32,
        {config_.vocab_size});
    tensors_.back().num_parameters = 0;
    tensors_.back().rows_are_limit = true;
  }
  Add("model.embed_tokens.weight", TensorKind::kEmbedding, StorageFormat::kBf16,
      {config_.vocab_size, d});
  Add("model.norm.weight", TensorKind::kNorm, StorageFormat::kBf16, {d});
  AddHeadMix("model.hc_head");
  Add("lm_head.weight", TensorKind::kHead, StorageFormat::kBf16, {config_.vocab_size, d});
}

void InventoryBuilder::AddAttention(const std::string& prefix) {
  constexpr TensorKind kKind = TensorKind::kAttention;
  const MlaConfig& mla = config_.mla;
  const int64_t d = config_.hidden_size;
  const int64_t h = mla.num_heads;
  AddLinear(prefix + "q_a_proj", kKind, mla.q_lora_rank, d);
  Add(prefix + "q_a_layernorm.weight", kKind, StorageFormat::kBf16, {mla.q_lora_rank});
  AddLinear(prefix + "q_b_proj", kKind, h * (mla.qk_nope_head_dim + mla.qk_rope_head_dim),
            mla.q_lora_rank);
  AddLinear(prefix + "kv_a_proj_with_mqa", kKind, mla.kv_lora_rank + mla.qk_rope_head_dim,
            d);
  Add(prefix + "kv_a_layernorm.weight", kKind, StorageFormat::kBf16, {mla.kv_lora_rank});
  AddLinear(prefix + "kv_b_proj", kKind, h * (mla.qk_nope_head_dim + mla.v_head_dim),
            mla.kv_lora_rank);
  AddLinear(prefix + "o_proj", kKind, d, h * mla.v_head_dim);
  if (config_.attention == AttentionKind::kMlaDsa) {
    AddIndexer(prefix + "indexer.");
  }
}

void InventoryBuilder::AddIndexer(const std::string& prefix) {
  constexpr TensorKind kKind = TensorKind::kIndexer;
  const IndexerConfig& indexer = config_.indexer;
  AddLinear(prefix + "wq_b", kKind, indexer.num_heads * indexer.head_dim,
            config_.mla.q_lora_rank);
  AddLinear(prefix + "wk", kKind, indexer.head_dim, config_.hidden_size);
  for (const char* name : {"k_norm.weight", "k_norm.bias"}) {
    Add(prefix + name, kKind, StorageFormat::kF32, {indexer.head_dim});
    tensors_.back().allows_bf16 = indexer.allows_bf16_norm;
  }
  Add(prefix + "weights_proj.weight", kKind, StorageFormat::kBf16,
      {indexer.num_heads, config_.hidden_size});
}

void InventoryBuilder::AddMlp(const std::string& prefix, TensorKind kind, DType dtype,
                              int64_t width) {
  AddMatrix(prefix + "gate_proj", kind, dtype, width, config_.hidden_size);
  AddMatrix(prefix + "up_proj", kind, dtype, width, config_.hidden_size);
  AddMatrix(prefix + "down_proj", kind, dtype, config_.hidden_size, width);
}

void InventoryBuilder::AddMoe(const std::string& prefix) {
  const MoeConfig& moe = config_.moe;
  Add(prefix + "gate.weight", TensorKind::kRouter, StorageFormat::kBf16,
      {moe.num_experts, config_.hidden_size});
  Add(prefix + "gate.e_score_correction_bias", TensorKind::kRouter, StorageFormat::kF32,
      {moe.num_experts});
  for (int64_t expert = 0; expert < moe.num_experts; ++expert) {
    AddMlp(fmt::format("{}experts.{}.", prefix, expert), TensorKind::kRoutedExpert,
           moe.expert_dtype, moe.expert_width);
  }
  if (moe.num_shared_experts > 0) {
    AddMlp(prefix + "shared_experts.", TensorKind::kSharedExpert,
           config_.fp8_linears ? DType::kF8E4M3 : DType::kBF16,
           moe.num_shared_experts * moe.expert_width);
  }
}

void InventoryBuilder::AddEngram(const std::string& prefix, int64_t rows) {
  constexpr TensorKind kKind = TensorKind::kEngramFusion;
  const EngramConfig& engram = *config_.engram;
  const int64_t d = config_.hidden_size;
  const int64_t streams = config_.num_streams();
  if (engram_rows_ == EngramRowFormat::kFp8) {
    Add(prefix + "embed.weight", TensorKind::kEngramTable, StorageFormat::kFp8Rows,
        {rows, engram.head_dim});
    AddScale(prefix + "embed.scale", TensorKind::kEngramTable, StorageFormat::kFp8Rows,
             {rows, CeilDivide(engram.head_dim, kScaleGroup)});
  } else {
    Add(prefix + "embed.weight", TensorKind::kEngramTable, StorageFormat::kBf16,
        {rows, engram.head_dim});
  }
  AddLinear(prefix + "wkv", kKind, (streams + 1) * d,
            engram.num_columns() * engram.head_dim);
  Add(prefix + "q_weight", kKind, StorageFormat::kBf16, {streams, d});
  Add(prefix + "k_weight", kKind, StorageFormat::kBf16, {streams, d});
  if (engram.contract == EngramContract::kDemo) {
    Add(prefix + "conv.weight", kKind, StorageFormat::kBf16, {streams * d, 4});
    Add(prefix + "conv_norm.weight", kKind, StorageFormat::kBf16, {streams, d});
  }
}

void InventoryBuilder::AddDraft(const std::string& prefix) {
  constexpr TensorKind kKind = TensorKind::kDraft;
  const int64_t d = config_.hidden_size;
  for (const char* name : {"enorm", "hnorm", "shared_head.norm"}) {
    Add(fmt::format("{}{}.weight", prefix, name), kKind, StorageFormat::kBf16, {d});
  }
  Add(prefix + "eh_proj.weight", kKind, StorageFormat::kBf16, {d, 2 * d});
  AddHeadMix(prefix + "hc_head");
  if (config_.draft_has_copies) {
    Add(prefix + "embed_tokens.weight", kKind, StorageFormat::kBf16,
        {config_.vocab_size, d});
    Add(prefix + "shared_head.head.weight", kKind, StorageFormat::kBf16,
        {config_.vocab_size, d});
  }
}

void InventoryBuilder::AddLayer(int64_t layer) {
  layer_ = layer;
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  const int64_t d = config_.hidden_size;
  Add(prefix + "input_layernorm.weight", TensorKind::kNorm, StorageFormat::kBf16, {d});
  Add(prefix + "post_attention_layernorm.weight", TensorKind::kNorm, StorageFormat::kBf16,
      {d});
  AddSublayerMix(prefix + "hc_attn");
  AddSublayerMix(prefix + "hc_ffn");
  AddAttention(prefix + "self_attn.");
  if (config_.is_dense_layer(layer)) {
    AddMlp(prefix + "mlp.", TensorKind::kDenseMlp,
           config_.fp8_linears ? DType::kF8E4M3 : DType::kBF16, config_.dense_width);
  } else {
    AddMoe(prefix + "mlp.");
  }
}

std::vector<ExpectedTensor> InventoryBuilder::Build() {
  AddTopLevel();
  size_t num_tables = 0;
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    AddLayer(layer);
    if (config_.is_engram_layer(layer)) {
      AddEngram(fmt::format("model.layers.{}.engram.", layer),
                config_.engram->num_embeddings[num_tables++]);
    }
  }
  for (int64_t draft = 0; draft < config_.num_draft_layers; ++draft) {
    AddLayer(config_.num_layers + draft);
    AddDraft(fmt::format("model.layers.{}.", config_.num_layers + draft));
  }
  return std::move(tensors_);
}

absl::Status CheckTensor(const ExpectedTensor& expected, const Checkpoint& checkpoint) {
  const absl::StatusOr<TensorRef> found = checkpoint.Find(expected.name);
  const std::string wanted = fmt::format(
      "{}{} {}{}", DTypeName(expected.dtype), expected.allows_bf16 ? " or BF16" : "",
      FormatShape(expected.shape), expected.rows_are_limit ? " or fewer" : "");
  if (!found.ok()) {
    return InvalidArgumentF("tensor {}: is missing, expected {}", expected.name, wanted);
  }
  std::vector<int64_t> shape = found->shape;
  if (expected.rows_are_limit && !shape.empty() && shape.front() > 0 &&
      shape.front() <= expected.shape.front()) {
    shape.front() = expected.shape.front();
  }
  const bool right_type = found->dtype == expected.dtype ||
                          (expected.allows_bf16 && found->dtype == DType::kBF16);
  if (!right_type || shape != expected.shape) {
    return InvalidArgumentF("tensor {}: found {} {}, expected {}", expected.name,
                            DTypeName(found->dtype), FormatShape(found->shape), wanted);
  }
  return absl::OkStatus();
}

}  // namespace

std::string_view TensorKindName(TensorKind kind) {
  constexpr std::array<std::string_view, kNumTensorKinds> kNames = {
      "embedding",    "head",          "norm",       "attention",     "indexer",
      "mhc",          "dense mlp",     "router",     "shared expert", "routed expert",
      "engram table", "engram fusion", "engram map", "draft"};
  return kNames[static_cast<size_t>(kind)];
}

std::string_view StorageFormatName(StorageFormat format) {
  constexpr std::array<std::string_view, kNumStorageFormats> kNames = {
      "f32", "bf16", "fp8 128x128", "mxfp4", "fp8 rows", "i32"};
  return kNames[static_cast<size_t>(format)];
}

int64_t ExpectedTensor::num_bytes() const {
  int64_t bytes = static_cast<int64_t>(DTypeBits(dtype) / 8);
  for (const int64_t dimension : shape) {
    bytes *= dimension;
  }
  return bytes;
}

EngramRowFormat DefaultEngramRowFormat(const ModelConfig& config) {
  const bool fits =
      config.engram.has_value() && config.engram->head_dim % kScaleGroup == 0;
  return config.fp8_linears && fits ? EngramRowFormat::kFp8 : EngramRowFormat::kBf16;
}

EngramRowFormat FindEngramRowFormat(const ModelConfig& config,
                                    const Checkpoint& checkpoint) {
  if (!config.engram.has_value()) {
    return EngramRowFormat::kBf16;
  }
  const absl::StatusOr<TensorRef> table = checkpoint.Find(fmt::format(
      "model.layers.{}.engram.embed.weight", config.engram->layer_ids.front()));
  return table.ok() && table->dtype == DType::kF8E4M3 ? EngramRowFormat::kFp8
                                                      : EngramRowFormat::kBf16;
}

std::vector<ExpectedTensor> TensorInventory(const ModelConfig& config,
                                            EngramRowFormat engram_rows) {
  if (config.engram.has_value()) {
    TESSERA_CHECK_EQ(config.engram->num_embeddings.size(),
                     config.engram->layer_ids.size());
  }
  return InventoryBuilder(config, engram_rows).Build();
}

bool IsSkippedTensor(const ModelConfig& config, std::string_view name) {
  for (int64_t draft = 0; draft < config.num_draft_layers; ++draft) {
    const std::string prefix = fmt::format("model.layers.{}.", config.num_layers + draft);
    if (name == prefix + "embed_tokens.weight" ||
        name == prefix + "shared_head.head.weight") {
      return true;
    }
  }
  return false;
}

absl::Status ValidateCheckpoint(const ModelConfig& config, const Checkpoint& checkpoint) {
  const EngramRowFormat engram_rows = FindEngramRowFormat(config, checkpoint);
  if (engram_rows == EngramRowFormat::kFp8 &&
      config.engram->head_dim % kScaleGroup != 0) {
    return InvalidArgumentF(
        "engram_head_dim is {}, expected a multiple of {} for fp8 rows",
        config.engram->head_dim, kScaleGroup);
  }
  const std::vector<ExpectedTensor> inventory = TensorInventory(config, engram_rows);
  std::unordered_set<std::string_view> names;
  names.reserve(inventory.size());
  for (const ExpectedTensor& expected : inventory) {
    TESSERA_RETURN_IF_ERROR(CheckTensor(expected, checkpoint));
    names.insert(expected.name);
  }
  for (const std::string& name : checkpoint.names()) {
    if (!names.contains(name) && !IsSkippedTensor(config, name)) {
      return InvalidArgumentF(
          "tensor {}: found in the checkpoint, expected no such tensor "
          "in a {} model of this config",
          name, config.family);
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera::model
