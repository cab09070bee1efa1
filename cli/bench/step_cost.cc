#include "cli/bench/step_cost.h"

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>

#include "model/config/model_config.h"
#include "model/tensors/tensor_inventory.h"
#include "worker/layers/index_queries.h"
#include "worker/runner/kv_pool.h"

namespace tessera::cli {
namespace {

// Tensors of which a step reads single rows, or nothing.
bool IsLookedUp(const model::ExpectedTensor& tensor) {
  switch (tensor.kind) {
    case model::TensorKind::kEmbedding:
    case model::TensorKind::kEngramTable:
    case model::TensorKind::kEngramMap:
    case model::TensorKind::kDraft:
    case model::TensorKind::kVision:
      return true;
    default:
      // Tables of experts by token id.
      return tensor.format == model::StorageFormat::kI32 ||
             tensor.format == model::StorageFormat::kI64;
  }
}

// Bytes of a weight in 8 bits with a byte of step for 32 values, where that is fewer than
// the checkpoint's.
int64_t RoundedBytes(const model::ExpectedTensor& tensor) {
  switch (tensor.kind) {
    case model::TensorKind::kHead:
    case model::TensorKind::kAttention:
    case model::TensorKind::kDenseMlp:
    case model::TensorKind::kSharedExpert:
    case model::TensorKind::kRoutedExpert:
      return tensor.shape.size() == 2 && tensor.num_parameters > 0
                 ? std::min(tensor.num_bytes(), tensor.num_parameters * 33 / 32)
                 : tensor.num_bytes();
    default:
      return tensor.num_bytes();
  }
}

// A matrix that makes queries of an indexer, or their weights, where no score is asked
// for: the layers leave both out.
bool IsIdleQuery(const model::ModelConfig& config, const model::ExpectedTensor& tensor,
                 int64_t most_visible) {
  if (tensor.kind != model::TensorKind::kIndexer ||
      (tensor.name.find(".wq_b.") == std::string::npos &&
       tensor.name.find(".weights_proj.") == std::string::npos)) {
    return false;
  }
  return !worker::IndexQueries(config, tensor.layer).AreMade(most_visible);
}

}  // namespace

WeightCost WeightCostOf(const model::ModelConfig& config,
                        model::EngramRowFormat engram_rows, int64_t most_visible,
                        bool rounds_dense) {
  WeightCost cost;
  int64_t routed_bytes = 0;
  int64_t routed_parameters = 0;
  std::set<int64_t> moe_layers;
  for (const model::ExpectedTensor& tensor :
       model::TensorInventory(config, engram_rows)) {
    if (!tensor.is_loaded || tensor.layer >= config.num_layers || IsLookedUp(tensor) ||
        IsIdleQuery(config, tensor, most_visible)) {
      continue;
    }
    // Vectors (norms, biases) are read, but add no product of note.
    const int64_t products = tensor.shape.size() > 1 ? tensor.num_parameters : 0;
    if (tensor.kind == model::TensorKind::kRoutedExpert) {
      moe_layers.insert(tensor.layer);
      routed_bytes += rounds_dense ? RoundedBytes(tensor) : tensor.num_bytes();
      routed_parameters += products;
      continue;
    }
    cost.always_bytes += rounds_dense ? RoundedBytes(tensor) : tensor.num_bytes();
    (tensor.kind == model::TensorKind::kHead ? cost.head_multiply_adds
                                             : cost.token_multiply_adds) += products;
  }
  cost.moe_layers = static_cast<int64_t>(moe_layers.size());
  const int64_t experts = cost.moe_layers * config.moe.num_experts;
  if (experts > 0) {
    cost.expert_bytes = routed_bytes / experts;
    cost.expert_multiply_adds = routed_parameters / experts;
  }
  return cost;
}

int64_t PrefillMultiplyAdds(const WeightCost& cost, const model::ModelConfig& config,
                            int64_t tokens) {
  const int64_t routed =
      cost.moe_layers * config.moe.experts_per_token * cost.expert_multiply_adds;
  return tokens * (cost.token_multiply_adds + routed) + cost.head_multiply_adds;
}

int64_t AttentionMultiplyAdds(const model::ModelConfig& config, int64_t tokens) {
  int64_t sum = 0;
  if (config.has_window()) {
    const model::CompressedAttentionConfig& compressed = config.compressed;
    for (int64_t layer = 0; layer < config.num_layers; ++layer) {
      const auto i = static_cast<size_t>(layer);
      const int64_t ratio = compressed.ratios[i];
      const bool selects = compressed.index_sources[i] >= 0;
      for (int64_t visible = 1; visible <= tokens; ++visible) {
        const int64_t entries = ratio > 0 ? visible / ratio : 0;
        sum += std::min(visible, compressed.window) +
               (selects ? std::min(entries, config.indexer.topk) : entries);
      }
    }
    return sum * compressed.num_heads * 2 * compressed.head_dim;
  }
  const bool selects = config.attention == model::AttentionKind::kMlaDsa;
  for (int64_t visible = 1; visible <= tokens; ++visible) {
    sum += selects ? std::min(visible, config.indexer.topk) : visible;
  }
  const model::MlaConfig& mla = config.mla;
  return sum * config.num_layers * mla.num_heads *
         (mla.qk_nope_head_dim + mla.qk_rope_head_dim + mla.v_head_dim);
}

int64_t CachedBytes(const model::ModelConfig& config,
                    const worker::KvPool::PageFormat& format, int64_t tokens) {
  // Rows of the draft layers are in the same blocks, and no plain step reads them.
  model::ModelConfig main = config;
  main.draft = model::DraftKind::kNone;
  main.num_draft_layers = 0;
  main.dspark.reset();
  const auto block = static_cast<int64_t>(worker::KvPool::BlockBytes(main, format));
  const auto tail = static_cast<int64_t>(worker::KvPool::TailBlockBytes(main, format));
  const int64_t tail_tokens = std::min(tokens, config.tail_tokens());
  return (tokens * block + tail_tokens * tail) / format.block_size;
}

}  // namespace tessera::cli
