#include "worker/layers/cache_layout.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "model/config/model_config.h"
#include "tests/testing/config_documents.h"

namespace tessera::worker {
namespace {

using testing::PublishedConfig;

// Values per token, of all layers, in blocks or in tail blocks; a row of several tokens
// counts as its share.
double ValuesPerToken(const std::vector<CacheSpec>& specs, bool in_tail) {
  double values = 0;
  for (const CacheSpec& spec : specs) {
    values += spec.in_tail == in_tail
                  ? static_cast<double>(spec.row.width) / static_cast<double>(spec.ratio)
                  : 0;
  }
  return values;
}

std::vector<int64_t> LayersWith(const std::vector<CacheSpec>& specs, CacheRole role) {
  std::vector<int64_t> layers;
  for (const CacheSpec& spec : specs) {
    if (spec.role == role) {
      layers.push_back(spec.layer);
    }
  }
  return layers;
}

TEST(CacheLayout, OfMlaHoldsLatentRopeKeyAndIndexKeyOfEveryLayer) {
  model::ModelConfig config;
  config.attention = model::AttentionKind::kMlaDsa;
  config.num_layers = 3;
  config.num_draft_layers = 1;
  config.mla.kv_lora_rank = 512;
  config.mla.qk_rope_head_dim = 64;
  config.indexer.head_dim = 128;
  std::vector<CacheSpec> specs = DescribeCaches(config, KvCacheDtype::kActivations);
  EXPECT_EQ(ValuesPerToken(specs, false), 4 * (512 + 64 + 128));
  EXPECT_EQ(ValuesPerToken(specs, true), 0);
  config.attention = model::AttentionKind::kMla;
  specs = DescribeCaches(config, KvCacheDtype::kActivations);
  EXPECT_EQ(ValuesPerToken(specs, false), 4 * (512 + 64));
}

// docs/design/0003: 21 CSA layers of 512 + 128 values per 4 tokens, 20 HCA layers of 512
// per 128; window rows of 43 layers and the MTP layer, raw rows of entries and keys.
TEST(CacheLayout, OfV4FlashHoldsEntriesInBlocksAndRawRowsInTails) {
  const std::vector<CacheSpec> specs =
      DescribeCaches(PublishedConfig("deepseek_v4_flash"), KvCacheDtype::kActivations);
  EXPECT_EQ(ValuesPerToken(specs, false), 21 * (512 + 128) / 4.0 + 20 * 512 / 128.0);
  EXPECT_EQ(ValuesPerToken(specs, true), 44 * 512 + 21 * 2 * (1024 + 256) + 20 * 2 * 512);
}

TEST(CacheLayout, OfV41HoldsEntriesOfSourceLayersAlone) {
  const std::vector<CacheSpec> specs =
      DescribeCaches(PublishedConfig("deepseek_v4.1_flash"), KvCacheDtype::kActivations);
  const std::vector<int64_t> sources = {2, 8, 14, 20};
  EXPECT_EQ(LayersWith(specs, CacheRole::kEntry), sources);
  EXPECT_EQ(LayersWith(specs, CacheRole::kIndexKey), sources);
  // A ratio of 1 pools nothing; index keys are made of entries.
  EXPECT_EQ(LayersWith(specs, CacheRole::kEntryGate), (std::vector<int64_t>{2, 8, 14}));
  EXPECT_TRUE(LayersWith(specs, CacheRole::kIndexValue).empty());
  EXPECT_EQ(LayersWith(specs, CacheRole::kWindow).size(), 43u);
  EXPECT_EQ(ValuesPerToken(specs, false), 3 * (512 + 128) / 2.0 + 512 + 128);
}

// Bytes of a packed row of the first layer that has one of `role`; 0: none is packed.
int64_t PackedBytes(const model::ModelConfig& config, CacheRole role) {
  for (const CacheSpec& spec : DescribeCaches(config, KvCacheDtype::kFp8)) {
    if (spec.role == role) {
      return spec.row.is_packed() ? spec.row.packed_bytes() : 0;
    }
  }
  ADD_FAILURE() << "no such cache";
  return 0;
}

// The rows of model.md 5.2, 5.3, 6.6 and 9.2 at the widths of the published models.
TEST(CacheLayout, PacksTheRowsOfThePublishedModels) {
  const model::ModelConfig v32 = PublishedConfig("deepseek_v3.2");
  EXPECT_EQ(PackedBytes(v32, CacheRole::kLatent), 656);
  EXPECT_EQ(PackedBytes(v32, CacheRole::kIndexKey), 132);
  const model::ModelConfig v4 = PublishedConfig("deepseek_v4_flash");
  EXPECT_EQ(PackedBytes(v4, CacheRole::kWindow), 584);
  EXPECT_EQ(PackedBytes(v4, CacheRole::kEntry), 584);
  EXPECT_EQ(PackedBytes(v4, CacheRole::kIndexKey), 68);
  EXPECT_EQ(PackedBytes(v4, CacheRole::kEntryGate), 0);
  EXPECT_EQ(PackedBytes(v4, CacheRole::kIndexValue), 0);
  const model::ModelConfig v41 = PublishedConfig("deepseek_v4.1_flash");
  EXPECT_EQ(PackedBytes(v41, CacheRole::kWindow), 528);
  EXPECT_EQ(PackedBytes(v41, CacheRole::kEntry), 288);
  EXPECT_EQ(PackedBytes(v41, CacheRole::kIndexKey), 68);
}

TEST(CacheLayout, PackedRowsHaveAWidthThatKernelsAreMadeFor) {
  model::ModelConfig config = PublishedConfig("deepseek_v3");
  config.mla.kv_lora_rank = 1024 - config.mla.qk_rope_head_dim;
  EXPECT_TRUE(CheckKvCacheDtype(config, KvCacheDtype::kFp8).ok());
  ++config.mla.kv_lora_rank;
  EXPECT_TRUE(CheckKvCacheDtype(config, KvCacheDtype::kActivations).ok());
  const absl::Status refused = CheckKvCacheDtype(config, KvCacheDtype::kFp8);
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(refused.message(),
            "layer 0: a packed row of 1025 values, expected at most 1024");
}

TEST(CacheLayout, NamesEveryCacheOnce) {
  for (const char* name : {"deepseek_v4_flash", "deepseek_v4.1_flash"}) {
    std::vector<CacheSpec> specs =
        DescribeCaches(PublishedConfig(name), KvCacheDtype::kActivations);
    const auto key = [](const CacheSpec& spec) {
      return std::pair(spec.layer, static_cast<int>(spec.role));
    };
    std::sort(specs.begin(), specs.end(),
              [&](const CacheSpec& a, const CacheSpec& b) { return key(a) < key(b); });
    EXPECT_EQ(std::adjacent_find(specs.begin(), specs.end(),
                                 [&](const CacheSpec& a, const CacheSpec& b) {
                                   return key(a) == key(b);
                                 }),
              specs.end())
        << name;
  }
}

}  // namespace
}  // namespace tessera::worker
