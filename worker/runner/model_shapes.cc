#include "worker/runner/model_shapes.h"

#include <algorithm>
#include <cstdint>

namespace tessera::worker {
namespace {

using model::ModelConfig;

int64_t LongestAttentionRow(const ModelConfig& config) {
  if (config.has_window()) {
    const model::CompressedAttentionConfig& attention = config.compressed;
    // The output projections read the heads of a group, then all groups. Compressors
    // write keys and values of two overlapping entries.
    const int64_t group =
        attention.num_heads / attention.num_output_groups * attention.head_dim;
    return std::max({group, attention.q_lora_rank,
                     attention.num_output_groups * attention.output_rank,
                     2 * attention.head_dim});
  }
  const model::MlaConfig& mla = config.mla;
  return std::max({mla.num_heads * mla.v_head_dim, mla.q_lora_rank, mla.kv_lora_rank,
                   mla.qk_nope_head_dim + mla.qk_rope_head_dim});
}

int64_t LongestRow(const ModelConfig& config) {
  // Gates of mHC and of Engram, and the draft's projections, read streams side by side.
  int64_t row = std::max(config.num_streams(), int64_t{2}) * config.hidden_size;
  row = std::max({row, LongestAttentionRow(config), config.dense_width});
  for (const model::MoeConfig& moe : {config.moe, config.draft_moe}) {
    row = std::max({row, moe.expert_width, moe.num_shared_experts * moe.expert_width});
  }
  if (config.engram.has_value()) {
    row = std::max(row, config.engram->num_columns() * config.engram->head_dim);
  }
  if (config.dspark.has_value()) {
    row = std::max(
        {row, config.dspark->markov_rank + config.hidden_size,
         static_cast<int64_t>(config.dspark->targets.size()) * config.hidden_size});
  }
  return row;
}

}  // namespace

kernels::ModelShapes ShapesOf(const ModelConfig& config) {
  kernels::ModelShapes shapes = {.row = LongestRow(config)};
  if (config.has_window()) {
    shapes.shared_kv_dim = config.compressed.head_dim;
    shapes.candidate_blocks = config.compressed.candidate_blocks;
    shapes.candidate_block_size = config.compressed.candidate_block_size;
    for (const int64_t ratio : config.distinct_ratios()) {
      shapes.entry_ratio = std::max(shapes.entry_ratio, ratio);
    }
  } else {
    shapes.head_rows = config.mla.qk_nope_head_dim;
    shapes.latent_dim = config.mla.kv_lora_rank;
    shapes.rope_dim = config.mla.qk_rope_head_dim;
  }
  if (config.attention != model::AttentionKind::kMla) {
    shapes.index_heads = config.indexer.num_heads;
    shapes.index_dim = config.indexer.head_dim;
    shapes.index_topk = config.indexer.topk;
  }
  if (config.attention == model::AttentionKind::kMlaDsa) {
    shapes.mla_selected = config.indexer.topk;
  }
  for (const model::MoeConfig& moe : {config.moe, config.draft_moe}) {
    shapes.num_experts = std::max(shapes.num_experts, moe.num_experts);
    shapes.num_expert_groups = std::max(shapes.num_expert_groups, moe.num_groups);
  }
  return shapes;
}

}  // namespace tessera::worker
