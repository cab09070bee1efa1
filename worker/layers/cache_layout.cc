#include "worker/layers/cache_layout.h"

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"

#include "common/status.h"
#include "kernels/row_format.h"
#include "model/config/model_config.h"

namespace tessera::worker {

namespace {

using kernels::RowCode;
using kernels::RowFormat;
using kernels::RowScale;
using Specs = std::vector<CacheSpec>;

// Values of an MLA latent that share a scale (model.md 5.2).
constexpr int64_t kLatentGroup = 128;

// The packed form, or plain rows of the same width.
RowFormat Choose(KvCacheDtype dtype, const RowFormat& packed) {
  return dtype == KvCacheDtype::kFp8 ? packed : RowFormat::Plain(packed.width);
}

// The first `coded` of `width` values, in groups that the model itself rounds alike, with
// the scales of that rounding.
RowFormat E4M3Row(int64_t width, int64_t coded, int64_t group, RowScale scale) {
  return {.code = RowCode::kE4M3,
          .scale = scale,
          .width = width,
          .coded = coded,
          .group = group};
}

RowFormat Fp4Row(int64_t width, int64_t group, RowScale scale) {
  return {.code = RowCode::kFp4,
          .scale = scale,
          .width = width,
          .coded = width,
          .group = group};
}

RowFormat WindowRow(const model::CompressedAttentionConfig& config) {
  const int64_t width = config.head_dim;
  return E4M3Row(width, config.window_quant_covers_rope ? width : width - config.rope_dim,
                 config.window_quant_group, RowScale::kE8M0);
}

RowFormat EntryRow(const model::CompressedAttentionConfig& config) {
  const int64_t width = config.head_dim;
  return config.entry_quant_is_fp4
             ? Fp4Row(width, config.entry_quant_group, RowScale::kE4M3)
             : E4M3Row(width, width - config.rope_dim, config.entry_quant_group,
                       RowScale::kE8M0);
}

void DescribeMla(const model::ModelConfig& config, KvCacheDtype dtype, int64_t layer,
                 Specs& specs) {
  const int64_t c = config.mla.kv_lora_rank;
  specs.push_back({.role = CacheRole::kLatent,
                   .layer = layer,
                   .row = Choose(dtype, E4M3Row(c + config.mla.qk_rope_head_dim, c,
                                                kLatentGroup, RowScale::kF32))});
  if (config.attention == model::AttentionKind::kMlaDsa) {
    const int64_t width = config.indexer.head_dim;
    specs.push_back({.role = CacheRole::kIndexKey,
                     .layer = layer,
                     .row = Choose(dtype, E4M3Row(width, width, width, RowScale::kF32))});
  }
}

// Raw rows that the entries of a cache are pooled from.
void DescribePooling(CacheRole values, CacheRole gates, const CacheSpec& entry,
                     int64_t overlapping_ratio, Specs& specs) {
  const int64_t width =
      entry.ratio == overlapping_ratio ? 2 * entry.row.width : entry.row.width;
  for (const CacheRole role : {values, gates}) {
    specs.push_back({.role = role,
                     .layer = entry.layer,
                     .row = RowFormat::Plain(width),
                     .in_tail = true});
  }
}

// Entries and index keys lie with the layer that makes them.
void DescribeCompressed(const model::ModelConfig& config, KvCacheDtype dtype,
                        int64_t layer, Specs& specs) {
  const model::CompressedAttentionConfig& compressed = config.compressed;
  specs.push_back({.role = CacheRole::kWindow,
                   .layer = layer,
                   .row = Choose(dtype, WindowRow(compressed)),
                   .in_tail = true});
  const int64_t ratio = compressed.ratios[static_cast<size_t>(layer)];
  if (ratio == 0 || compressed.kv_sources[static_cast<size_t>(layer)] != layer) {
    return;
  }
  const CacheSpec entry = {.role = CacheRole::kEntry,
                           .layer = layer,
                           .row = Choose(dtype, EntryRow(compressed)),
                           .ratio = ratio};
  specs.push_back(entry);
  if (ratio > 1) {
    DescribePooling(CacheRole::kEntryValue, CacheRole::kEntryGate, entry,
                    compressed.overlapping_ratio, specs);
  }
  if (ratio > compressed.indexed_ratio_limit) {
    return;
  }
  const CacheSpec key = {
      .role = CacheRole::kIndexKey,
      .layer = layer,
      .row = Choose(dtype, Fp4Row(config.indexer.head_dim, config.indexer.quant_group,
                                  RowScale::kE8M0)),
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

std::vector<CacheSpec> DescribeCaches(const model::ModelConfig& config,
                                      KvCacheDtype dtype) {
  Specs specs;
  for (int64_t layer = 0; layer < config.num_layers + config.num_draft_layers; ++layer) {
    switch (config.attention) {
      case model::AttentionKind::kMla:
      case model::AttentionKind::kMlaDsa:
        DescribeMla(config, dtype, layer, specs);
        break;
      case model::AttentionKind::kCompressed:
        DescribeCompressed(config, dtype, layer, specs);
        break;
    }
    if (KeepsConvRows(config, layer)) {
      specs.push_back(
          {.role = CacheRole::kEngramConv,
           .layer = layer,
           .row = RowFormat::Plain(config.num_streams() * config.hidden_size)});
    }
  }
  return specs;
}

absl::Status CheckKvCacheDtype(const model::ModelConfig& config, KvCacheDtype dtype) {
  for (const CacheSpec& spec : DescribeCaches(config, dtype)) {
    if (spec.row.is_packed() && spec.row.width > kernels::kMaxPackedWidth) {
      return InvalidArgumentF("layer {}: a packed row of {} values, expected at most {}",
                              spec.layer, spec.row.width, kernels::kMaxPackedWidth);
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera::worker
