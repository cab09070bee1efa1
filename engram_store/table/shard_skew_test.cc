// The load of shards is even: most over least distinct rows of one prefill request,
// V4.1's real hash over its two tables. Words are drawn by Zipf's law, which is what text
// does to the low orders: a few rows that everybody asks for.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "gtest/gtest.h"

#include "engram_store/hashing/engram_hash.h"
#include "engram_store/table/shard_map.h"
#include "model/config/model_config.h"
#include "tests/testing/config_documents.h"

namespace tessera::engram_store {
namespace {

// Raw ids taken as compressed ones: as many, and the map does not change what follows.
const EngramHash& V41Hash() {
  static const auto* const hash = [] {
    const auto config = model::ParseModelConfig(
        testing::ReadText("tests/data/configs/deepseek_v4.1_flash.json"));
    std::vector<int32_t> ids(static_cast<size_t>(config->engram->compressed_vocab_size));
    std::iota(ids.begin(), ids.end(), 0);
    return new EngramHash(EngramHash::Create(*config->engram, ids).value());
  }();
  return *hash;
}

std::vector<int32_t> Words(int64_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto vocabulary = static_cast<int32_t>(V41Hash().num_token_ids());
  std::uniform_real_distribution<double> exponent(0, std::log(vocabulary));
  std::vector<int32_t> words(static_cast<size_t>(count));
  for (int32_t& word : words) {
    word = std::min(static_cast<int32_t>(std::exp(exponent(random))), vocabulary - 1);
  }
  return words;
}

double Skew(int64_t layer, uint32_t num_shards, const std::vector<int32_t>& words) {
  const EngramHash& hash = V41Hash();
  std::vector<uint32_t> rows(words.size() * static_cast<size_t>(hash.num_columns()));
  hash.RowIds(layer, words, 0, true, {}, rows);
  const ShardMap map = ShardMap::Create(hash.primes(layer), num_shards).value();
  std::vector<double> load(num_shards);
  for (const uint32_t row : std::set<uint32_t>(rows.begin(), rows.end())) {
    load[map.Locate(row).shard] += 1;
  }
  const auto [least, most] = std::minmax_element(load.begin(), load.end());
  return *most / *least;
}

TEST(ShardSkew, APrefillAsksEveryShardForAlmostAsMuch) {
  for (const uint32_t num_shards : {2u, 4u, 8u, 16u}) {
    for (const uint64_t seed : {1u, 2u, 3u}) {
      for (const int64_t layer : {0, 1}) {
        EXPECT_LE(Skew(layer, num_shards, Words(2048, seed)), 1.2)
            << num_shards << " shards, layer " << layer << ", seed " << seed;
      }
    }
  }
}

// One word again and again: no shard gets more than a handful of rows.
TEST(ShardSkew, ARepeatedWordAsksForAHandfulOfRows) {
  const EngramHash& hash = V41Hash();
  const std::vector<int32_t> words(2048, 17);
  std::vector<uint32_t> rows(words.size() * static_cast<size_t>(hash.num_columns()));
  hash.RowIds(0, words, 0, true, {}, rows);
  const std::set<uint32_t> distinct(rows.begin(), rows.end());
  // Order n has n windows: n - 1 that reach before the start, and one without padding.
  EXPECT_LE(distinct.size(), size_t{8} * (2 + 3 + 4));
}

}  // namespace
}  // namespace tessera::engram_store
