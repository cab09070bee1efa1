#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "fmt/format.h"

#include "common/status_macros.h"
#include "model/config/model_config.h"
#include "model/formats/dtype.h"
#include "worker/layers/weights.h"
#include "worker/runner/weights/weight_parts.h"
#include "worker/runner/weights/weight_reader.h"

namespace tessera::worker {

using model::DType;

namespace {

constexpr MlpNames kMlp = {"gate_proj", "up_proj", "down_proj"};

absl::StatusOr<IndexerWeights> ReadIndexer(WeightReader& reader,
                                           const std::string& prefix) {
  IndexerWeights out;
  const model::ModelConfig& config = reader.config();
  const model::IndexerConfig& index = config.indexer;
  const int64_t d = config.hidden_size;
  TESSERA_ASSIGN_OR_RETURN(
      out.q, reader.Linear(prefix + "wq_b", index.num_heads * index.head_dim,
                           config.mla.q_lora_rank));
  TESSERA_ASSIGN_OR_RETURN(out.k, reader.Linear(prefix + "wk", index.head_dim, d));
  TESSERA_ASSIGN_OR_RETURN(out.k_norm_weight,
                           reader.FloatsOrBf16(prefix + "k_norm.weight", index.head_dim));
  TESSERA_ASSIGN_OR_RETURN(out.k_norm_bias,
                           reader.FloatsOrBf16(prefix + "k_norm.bias", index.head_dim));
  TESSERA_ASSIGN_OR_RETURN(
      out.head_weights,
      reader.Matrix(prefix + "weights_proj.weight", DType::kBF16, index.num_heads, d));
  return out;
}

absl::StatusOr<MlaWeights> ReadAttention(WeightReader& reader,
                                         const std::string& prefix) {
  MlaWeights out;
  const model::ModelConfig& config = reader.config();
  const model::MlaConfig& mla = config.mla;
  const int64_t d = config.hidden_size;
  const int64_t n = mla.qk_nope_head_dim;
  const int64_t r = mla.qk_rope_head_dim;
  const int64_t v = mla.v_head_dim;
  TESSERA_ASSIGN_OR_RETURN(out.q_a,
                           reader.Linear(prefix + "q_a_proj", mla.q_lora_rank, d));
  TESSERA_ASSIGN_OR_RETURN(out.q_a_norm,
                           reader.Norm(prefix + "q_a_layernorm.weight", mla.q_lora_rank));
  TESSERA_ASSIGN_OR_RETURN(
      out.q_b,
      reader.LinearRows(prefix + "q_b_proj", mla.num_heads * (n + r), mla.q_lora_rank));
  TESSERA_ASSIGN_OR_RETURN(
      out.kv_a, reader.Linear(prefix + "kv_a_proj_with_mqa", mla.kv_lora_rank + r, d));
  TESSERA_ASSIGN_OR_RETURN(
      out.kv_a_norm, reader.Norm(prefix + "kv_a_layernorm.weight", mla.kv_lora_rank));
  TESSERA_ASSIGN_OR_RETURN(
      out.kv_b,
      reader.HeadRows(prefix + "kv_b_proj", mla.num_heads * (n + v), mla.kv_lora_rank));
  TESSERA_ASSIGN_OR_RETURN(out.o,
                           reader.LinearColumns(prefix + "o_proj", d, mla.num_heads * v));
  if (config.attention == model::AttentionKind::kMlaDsa) {
    TESSERA_ASSIGN_OR_RETURN(out.indexer, ReadIndexer(reader, prefix + "indexer."));
  }
  return out;
}

absl::StatusOr<MoeWeights> ReadMoe(WeightReader& reader, const std::string& prefix,
                                   int64_t layer) {
  TESSERA_ASSIGN_OR_RETURN(MoeWeights out, ReadExperts(reader, prefix, kMlp, layer));
  const int64_t experts = reader.config().moe_of(layer).num_experts;
  TESSERA_ASSIGN_OR_RETURN(out.router,
                           reader.Matrix(prefix + "gate.weight", DType::kBF16, experts,
                                         reader.config().hidden_size));
  TESSERA_ASSIGN_OR_RETURN(
      out.router_bias, reader.Floats(prefix + "gate.e_score_correction_bias", experts));
  return out;
}

absl::StatusOr<LayerWeights> ReadLayer(WeightReader& reader, int64_t index) {
  LayerWeights out;
  const model::ModelConfig& config = reader.config();
  const std::string prefix = fmt::format("model.layers.{}.", index);
  const int64_t d = config.hidden_size;
  TESSERA_ASSIGN_OR_RETURN(out.input_norm,
                           reader.Norm(prefix + "input_layernorm.weight", d));
  TESSERA_ASSIGN_OR_RETURN(out.post_attention_norm,
                           reader.Norm(prefix + "post_attention_layernorm.weight", d));
  TESSERA_ASSIGN_OR_RETURN(out.attention_hyper,
                           ReadSublayerHyper(reader, prefix + "hc_attn."));
  TESSERA_ASSIGN_OR_RETURN(out.ffn_hyper, ReadSublayerHyper(reader, prefix + "hc_ffn."));
  TESSERA_ASSIGN_OR_RETURN(out.attention, ReadAttention(reader, prefix + "self_attn."));
  if (config.is_dense_layer(index)) {
    TESSERA_ASSIGN_OR_RETURN(out.dense,
                             ReadMlp(reader, prefix + "mlp.", kMlp, config.dense_width));
  } else {
    TESSERA_ASSIGN_OR_RETURN(out.moe, ReadMoe(reader, prefix + "mlp.", index));
  }
  if (config.is_engram_layer(index)) {
    TESSERA_ASSIGN_OR_RETURN(out.engram, ReadEngram(reader, prefix + "engram."));
  }
  return out;
}

absl::StatusOr<DraftWeights> ReadDraft(WeightReader& reader, int64_t index) {
  DraftWeights out;
  const std::string prefix = fmt::format("model.layers.{}.", index);
  const int64_t d = reader.config().hidden_size;
  TESSERA_ASSIGN_OR_RETURN(out.layer, ReadLayer(reader, index));
  TESSERA_ASSIGN_OR_RETURN(out.embedding_norm, reader.Norm(prefix + "enorm.weight", d));
  TESSERA_ASSIGN_OR_RETURN(out.hidden_norm, reader.Norm(prefix + "hnorm.weight", d));
  TESSERA_ASSIGN_OR_RETURN(out.head_norm,
                           reader.Norm(prefix + "shared_head.norm.weight", d));
  TESSERA_ASSIGN_OR_RETURN(
      out.join, reader.Matrix(prefix + "eh_proj.weight", DType::kBF16, d, 2 * d));
  TESSERA_ASSIGN_OR_RETURN(out.head_hyper, ReadHeadHyper(reader, prefix + "hc_head."));
  return out;
}

}  // namespace

absl::StatusOr<ModelWeights> ReadHuggingFaceWeights(WeightReader& reader) {
  ModelWeights out;
  const model::ModelConfig& config = reader.config();
  const int64_t d = config.hidden_size;
  const int64_t vocab = config.vocab_size;
  TESSERA_ASSIGN_OR_RETURN(
      out.embedding, reader.Matrix("model.embed_tokens.weight", DType::kBF16, vocab, d));
  TESSERA_ASSIGN_OR_RETURN(out.head,
                           reader.Head("lm_head.weight", DType::kBF16, vocab, d));
  TESSERA_ASSIGN_OR_RETURN(out.final_norm, reader.Norm("model.norm.weight", d));
  TESSERA_ASSIGN_OR_RETURN(out.head_hyper, ReadHeadHyper(reader, "model.hc_head."));
  for (int64_t i = 0; i < config.num_layers; ++i) {
    TESSERA_ASSIGN_OR_RETURN(LayerWeights layer, ReadLayer(reader, i));
    out.layers.push_back(std::move(layer));
  }
  for (int64_t i = 0; i < config.num_draft_layers; ++i) {
    TESSERA_ASSIGN_OR_RETURN(DraftWeights draft,
                             ReadDraft(reader, config.num_layers + i));
    out.drafts.push_back(std::move(draft));
  }
  return out;
}

}  // namespace tessera::worker
