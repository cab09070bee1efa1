#include <cstddef>
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

constexpr MlpNames kMlp = {"w1", "w3", "w2"};

absl::StatusOr<CompressorWeights> ReadCompressor(WeightReader& reader,
                                                 const std::string& prefix, int64_t ratio,
                                                 int64_t dim) {
  CompressorWeights out;
  const model::CompressedAttentionConfig& attention = reader.config().compressed;
  const int64_t d = reader.config().hidden_size;
  const int64_t channels = ratio == attention.overlapping_ratio ? 2 * dim : dim;
  TESSERA_ASSIGN_OR_RETURN(
      out.kv, reader.Matrix(prefix + "wkv.weight", DType::kBF16, channels, d));
  if (ratio > 1) {
    TESSERA_ASSIGN_OR_RETURN(
        out.gate, reader.Matrix(prefix + "wgate.weight", DType::kBF16, channels, d));
  }
  if (attention.has_position_bias) {
    TESSERA_ASSIGN_OR_RETURN(out.position,
                             reader.Matrix(prefix + "ape", DType::kF32, ratio, channels));
  }
  TESSERA_ASSIGN_OR_RETURN(out.norm, reader.Norm(prefix + "norm.weight", dim));
  return out;
}

// Of a layer that makes a selection; keys where it makes the entries too.
absl::StatusOr<EntryIndexerWeights> ReadIndexer(WeightReader& reader,
                                                const std::string& prefix,
                                                int64_t layer) {
  EntryIndexerWeights out;
  const model::IndexerConfig& indexer = reader.config().indexer;
  const model::CompressedAttentionConfig& attention = reader.config().compressed;
  const auto at = static_cast<size_t>(layer);
  TESSERA_ASSIGN_OR_RETURN(
      out.q, reader.Linear(prefix + "wq_b", indexer.num_heads * indexer.head_dim,
                           attention.q_lora_rank));
  TESSERA_ASSIGN_OR_RETURN(out.head_weights,
                           reader.Matrix(prefix + "weights_proj.weight", DType::kBF16,
                                         indexer.num_heads, reader.config().hidden_size));
  if (attention.kv_sources[at] != layer) {
    return out;
  }
  if (attention.pools_index_keys) {
    TESSERA_ASSIGN_OR_RETURN(out.compressor,
                             ReadCompressor(reader, prefix + "compressor.",
                                            attention.ratios[at], indexer.head_dim));
    return out;
  }
  TESSERA_ASSIGN_OR_RETURN(out.k, reader.Matrix(prefix + "wk.weight", DType::kBF16,
                                                indexer.head_dim, attention.head_dim));
  TESSERA_ASSIGN_OR_RETURN(out.k_norm,
                           reader.Norm(prefix + "k_norm.weight", indexer.head_dim));
  return out;
}

absl::StatusOr<CompressedAttentionWeights> ReadAttention(WeightReader& reader,
                                                         const std::string& prefix,
                                                         int64_t layer) {
  CompressedAttentionWeights out;
  const model::CompressedAttentionConfig& attention = reader.config().compressed;
  const int64_t d = reader.config().hidden_size;
  const int64_t width = attention.num_heads * attention.head_dim;
  const int64_t groups = attention.num_output_groups;
  const int64_t rank = groups * attention.output_rank;
  TESSERA_ASSIGN_OR_RETURN(out.q_a,
                           reader.Linear(prefix + "wq_a", attention.q_lora_rank, d));
  TESSERA_ASSIGN_OR_RETURN(out.q_a_norm,
                           reader.Norm(prefix + "q_norm.weight", attention.q_lora_rank));
  TESSERA_ASSIGN_OR_RETURN(
      out.q_b, reader.LinearRows(prefix + "wq_b", width, attention.q_lora_rank));
  TESSERA_ASSIGN_OR_RETURN(out.kv, reader.Linear(prefix + "wkv", attention.head_dim, d));
  TESSERA_ASSIGN_OR_RETURN(out.kv_norm,
                           reader.Norm(prefix + "kv_norm.weight", attention.head_dim));
  TESSERA_ASSIGN_OR_RETURN(out.sinks,
                           reader.FloatShard(prefix + "attn_sink", attention.num_heads));
  TESSERA_ASSIGN_OR_RETURN(out.o_a,
                           reader.LinearRows(prefix + "wo_a", rank, width / groups));
  TESSERA_ASSIGN_OR_RETURN(out.o_b, reader.LinearColumns(prefix + "wo_b", d, rank));
  if (layer >= reader.config().num_layers) {
    return out;  // Draft layers see their window alone.
  }
  const auto at = static_cast<size_t>(layer);
  if (attention.kv_sources[at] == layer) {
    TESSERA_ASSIGN_OR_RETURN(out.compressor,
                             ReadCompressor(reader, prefix + "compressor.",
                                            attention.ratios[at], attention.head_dim));
  }
  if (attention.index_sources[at] == layer) {
    TESSERA_ASSIGN_OR_RETURN(out.indexer,
                             ReadIndexer(reader, prefix + "indexer.", layer));
  }
  return out;
}

absl::StatusOr<MoeWeights> ReadMoe(WeightReader& reader, const std::string& prefix,
                                   int64_t layer) {
  TESSERA_ASSIGN_OR_RETURN(MoeWeights out, ReadExperts(reader, prefix, kMlp, layer));
  const model::ModelConfig& config = reader.config();
  const model::MoeConfig& moe = config.moe_of(layer);
  TESSERA_ASSIGN_OR_RETURN(
      out.router, reader.Matrix(prefix + "gate.weight", DType::kBF16, moe.num_experts,
                                config.hidden_size));
  if (config.is_hash_layer(layer)) {
    TESSERA_ASSIGN_OR_RETURN(
        out.fixed_experts, reader.ExpertTable(prefix + "gate.tid2eid", config.vocab_size,
                                              moe.experts_per_token, moe.num_experts));
  } else {
    TESSERA_ASSIGN_OR_RETURN(out.router_bias,
                             reader.Floats(prefix + "gate.bias", moe.num_experts));
  }
  if (moe.has_image_bias) {
    TESSERA_ASSIGN_OR_RETURN(out.router_bias_vl,
                             reader.Floats(prefix + "gate.bias_vl", moe.num_experts));
  }
  return out;
}

absl::StatusOr<LayerWeights> ReadLayer(WeightReader& reader, const std::string& prefix,
                                       int64_t layer) {
  LayerWeights out;
  const int64_t d = reader.config().hidden_size;
  TESSERA_ASSIGN_OR_RETURN(out.input_norm, reader.Norm(prefix + "attn_norm.weight", d));
  TESSERA_ASSIGN_OR_RETURN(out.post_attention_norm,
                           reader.Norm(prefix + "ffn_norm.weight", d));
  TESSERA_ASSIGN_OR_RETURN(out.attention_hyper,
                           ReadSublayerHyper(reader, prefix + "hc_attn_"));
  TESSERA_ASSIGN_OR_RETURN(out.ffn_hyper, ReadSublayerHyper(reader, prefix + "hc_ffn_"));
  TESSERA_ASSIGN_OR_RETURN(out.attention, ReadAttention(reader, prefix + "attn.", layer));
  TESSERA_ASSIGN_OR_RETURN(out.moe, ReadMoe(reader, prefix + "ffn.", layer));
  if (reader.config().is_engram_layer(layer)) {
    TESSERA_ASSIGN_OR_RETURN(out.engram, ReadEngram(reader, prefix + "engram."));
  }
  return out;
}

absl::StatusOr<DraftWeights> ReadMtp(WeightReader& reader, int64_t draft) {
  DraftWeights out;
  const std::string prefix = fmt::format("mtp.{}.", draft);
  const int64_t d = reader.config().hidden_size;
  TESSERA_ASSIGN_OR_RETURN(out.layer,
                           ReadLayer(reader, prefix, reader.config().num_layers + draft));
  TESSERA_ASSIGN_OR_RETURN(out.embedding_norm, reader.Norm(prefix + "enorm.weight", d));
  TESSERA_ASSIGN_OR_RETURN(out.hidden_norm, reader.Norm(prefix + "hnorm.weight", d));
  TESSERA_ASSIGN_OR_RETURN(out.head_norm, reader.Norm(prefix + "norm.weight", d));
  TESSERA_ASSIGN_OR_RETURN(out.e_proj, reader.Linear(prefix + "e_proj", d, d));
  TESSERA_ASSIGN_OR_RETURN(out.h_proj, reader.Linear(prefix + "h_proj", d, d));
  TESSERA_ASSIGN_OR_RETURN(out.head_hyper, ReadHeadHyper(reader, prefix + "hc_head_"));
  return out;
}

absl::StatusOr<DsparkWeights> ReadDspark(WeightReader& reader) {
  DsparkWeights out;
  const model::ModelConfig& config = reader.config();
  const model::DsparkConfig& dspark = *config.dspark;
  const int64_t d = config.hidden_size;
  TESSERA_ASSIGN_OR_RETURN(
      out.main_proj, reader.Linear("mtp.0.main_proj", d,
                                   d * static_cast<int64_t>(dspark.targets.size())));
  TESSERA_ASSIGN_OR_RETURN(out.main_norm, reader.Norm("mtp.0.main_norm.weight", d));
  for (int64_t i = 0; i < config.num_draft_layers; ++i) {
    TESSERA_ASSIGN_OR_RETURN(
        LayerWeights stage,
        ReadLayer(reader, fmt::format("mtp.{}.", i), config.num_layers + i));
    out.stages.push_back(std::move(stage));
  }
  const std::string last = fmt::format("mtp.{}.", config.num_draft_layers - 1);
  TESSERA_ASSIGN_OR_RETURN(out.norm, reader.Norm(last + "norm.weight", d));
  TESSERA_ASSIGN_OR_RETURN(out.head_hyper, ReadHeadHyper(reader, last + "hc_head_"));
  TESSERA_ASSIGN_OR_RETURN(
      out.markov_embedding,
      reader.Matrix(fmt::format("{}{}.weight", last, dspark.markov_embedding_name),
                    DType::kBF16, config.vocab_size, dspark.markov_rank));
  TESSERA_ASSIGN_OR_RETURN(
      out.markov_head,
      reader.MatrixRows(fmt::format("{}{}.weight", last, dspark.markov_head_name),
                        DType::kBF16, config.vocab_size, dspark.markov_rank));
  TESSERA_ASSIGN_OR_RETURN(
      out.confidence, reader.Matrix(last + "confidence_head.proj.weight", DType::kBF16, 1,
                                    d + dspark.markov_rank));
  return out;
}

}  // namespace

absl::StatusOr<ModelWeights> ReadNativeWeights(WeightReader& reader) {
  ModelWeights out;
  const model::ModelConfig& config = reader.config();
  const int64_t d = config.hidden_size;
  const int64_t vocab = config.vocab_size;
  TESSERA_ASSIGN_OR_RETURN(out.embedding,
                           reader.Matrix("embed.weight", DType::kBF16, vocab, d));
  TESSERA_ASSIGN_OR_RETURN(out.head, reader.Head("head.weight", DType::kBF16, vocab, d));
  TESSERA_ASSIGN_OR_RETURN(out.final_norm, reader.Norm("norm.weight", d));
  TESSERA_ASSIGN_OR_RETURN(out.head_hyper, ReadHeadHyper(reader, "hc_head_"));
  for (int64_t i = 0; i < config.num_layers; ++i) {
    TESSERA_ASSIGN_OR_RETURN(LayerWeights layer,
                             ReadLayer(reader, fmt::format("layers.{}.", i), i));
    out.layers.push_back(std::move(layer));
  }
  if (config.draft == model::DraftKind::kDspark) {
    TESSERA_ASSIGN_OR_RETURN(out.dspark, ReadDspark(reader));
    return out;
  }
  for (int64_t i = 0; i < config.num_draft_layers; ++i) {
    TESSERA_ASSIGN_OR_RETURN(DraftWeights draft, ReadMtp(reader, i));
    out.drafts.push_back(std::move(draft));
  }
  return out;
}

}  // namespace tessera::worker
