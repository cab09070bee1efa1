#include "worker/layers/cache_layout.h"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "model/config/model_config.h"

namespace tessera::worker {
namespace {

model::ModelConfig Config(const std::string& name) {
  std::ifstream in("tests/data/configs/" + name);
  std::stringstream text;
  text << in.rdbuf();
  auto config = model::ParseModelConfig(text.str());
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? *std::move(config) : model::ModelConfig();
}

// Values per token, of all layers, in blocks or in tail blocks; a row of several tokens
// counts as its share.
double ValuesPerToken(const std::vector<CacheSpec>& specs, bool in_tail) {
  double values = 0;
  for (const CacheSpec& spec : specs) {
    values += spec.in_tail == in_tail
                  ? static_cast<double>(spec.width) / static_cast<double>(spec.ratio)
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
  std::vector<CacheSpec> specs = DescribeCaches(config);
  EXPECT_EQ(ValuesPerToken(specs, false), 4 * (512 + 64 + 128));
  EXPECT_EQ(ValuesPerToken(specs, true), 0);
  config.attention = model::AttentionKind::kMla;
  specs = DescribeCaches(config);
  EXPECT_EQ(ValuesPerToken(specs, false), 4 * (512 + 64));
}

// docs/design/0003: 21 CSA layers of 512 + 128 values per 4 tokens, 20 HCA layers of 512
// per 128; window rows of 43 layers and the MTP layer, raw rows of entries and keys.
TEST(CacheLayout, OfV4FlashHoldsEntriesInBlocksAndRawRowsInTails) {
  const std::vector<CacheSpec> specs = DescribeCaches(Config("deepseek_v4_flash.json"));
  EXPECT_EQ(ValuesPerToken(specs, false), 21 * (512 + 128) / 4.0 + 20 * 512 / 128.0);
  EXPECT_EQ(ValuesPerToken(specs, true), 44 * 512 + 21 * 2 * (1024 + 256) + 20 * 2 * 512);
}

TEST(CacheLayout, OfV41HoldsEntriesOfSourceLayersAlone) {
  const std::vector<CacheSpec> specs = DescribeCaches(Config("deepseek_v4.1_flash.json"));
  const std::vector<int64_t> sources = {2, 8, 14, 20};
  EXPECT_EQ(LayersWith(specs, CacheRole::kEntry), sources);
  EXPECT_EQ(LayersWith(specs, CacheRole::kIndexKey), sources);
  // A ratio of 1 pools nothing; index keys are made of entries.
  EXPECT_EQ(LayersWith(specs, CacheRole::kEntryGate), (std::vector<int64_t>{2, 8, 14}));
  EXPECT_TRUE(LayersWith(specs, CacheRole::kIndexValue).empty());
  EXPECT_EQ(LayersWith(specs, CacheRole::kWindow).size(), 43u);
  EXPECT_EQ(ValuesPerToken(specs, false), 3 * (512 + 128) / 2.0 + 512 + 128);
}

TEST(CacheLayout, NamesEveryCacheOnce) {
  for (const char* name : {"deepseek_v4_flash.json", "deepseek_v4.1_flash.json"}) {
    std::vector<CacheSpec> specs = DescribeCaches(Config(name));
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
