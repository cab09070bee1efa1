#include "worker/layers/cache_layout.h"

#include <cstddef>
#include <cstdint>
#include <vector>

#include "model/config/model_config.h"

namespace tessera::worker {

namespace {

using Specs = std::vector<CacheSpec>;

void DescribeMla(const model::ModelConfig& config, int64_t layer, Specs& specs) {
  specs.push_back(
      {.role = CacheRole::kLatent, .layer = layer, .width = config.mla.kv_lora_rank});
  specs.push_back({.role = CacheRole::kRopeKey,
                   .layer = layer,
                   .width = config.mla.qk_rope_head_dim});
  if (config.attention == model::AttentionKind::kMlaDsa) {
    specs.push_back(
        {.role = CacheRole::kIndexKey, .layer = layer, .width = config.indexer.head_dim});
  }
}

// Raw rows that entries of `width` values are pooled from.
void DescribePooling(CacheRole values, CacheRole gates, const CacheSpec& entry,
                     int64_t overlapping_ratio, Specs& specs) {
  const int64_t width = entry.ratio == overlapping_ratio ? 2 * entry.width : entry.width;
  for (const CacheRole role : {values, gates}) {
    specs.push_back(
        {.role = role, .layer = entry.layer, .width = width, .in_tail = true});
  }
}

// Entries and index keys lie with the layer that makes them.
void DescribeCompressed(const model::ModelConfig& config, int64_t layer, Specs& specs) {
  const model::CompressedAttentionConfig& compressed = config.compressed;
  specs.push_back({.role = CacheRole::kWindow,
                   .layer = layer,
                   .width = compressed.head_dim,
                   .in_tail = true});
  const int64_t ratio = compressed.ratios[static_cast<size_t>(layer)];
  if (ratio == 0 || compressed.kv_sources[static_cast<size_t>(layer)] != layer) {
    return;
  }
  const CacheSpec entry = {.role = CacheRole::kEntry,
                           .layer = layer,
                           .width = compressed.head_dim,
                           .ratio = ratio};
  specs.push_back(entry);
  if (ratio > 1) {
    DescribePooling(CacheRole::kEntryValue, CacheRole::kEntryGate, entry,
                    compressed.overlapping_ratio, specs);
  }
  if (ratio > compressed.indexed_ratio_limit) {
    return;
  }
  const CacheSpec key = {.role = CacheRole::kIndexKey,
                         .layer = layer,
                         .width = config.indexer.head_dim,
                         .ratio = ratio};
  specs.push_back(key);
  if (compressed.pools_index_keys && ratio > 1) {
    DescribePooling(CacheRole::kIndexValue, CacheRole::kIndexGate, key,
                    compressed.overlapping_ratio, specs);
  }
}

bool KeepsConvRows(const model::ModelConfig& config, int64_t layer) {
  return config.engram.has_value() && config.is_engram_layer(layer) &&
         config.engram->contract == model::EngramContract::kDemo;
}

}  // namespace

std::vector<CacheSpec> DescribeCaches(const model::ModelConfig& config) {
  Specs specs;
  for (int64_t layer = 0; layer < config.num_layers + config.num_draft_layers; ++layer) {
    switch (config.attention) {
      case model::AttentionKind::kMla:
      case model::AttentionKind::kMlaDsa:
        DescribeMla(config, layer, specs);
        break;
      case model::AttentionKind::kCompressed:
        DescribeCompressed(config, layer, specs);
        break;
    }
    if (KeepsConvRows(config, layer)) {
      specs.push_back({.role = CacheRole::kEngramConv,
                       .layer = layer,
                       .width = config.num_streams() * config.hidden_size});
    }
  }
  return specs;
}

}  // namespace tessera::worker
