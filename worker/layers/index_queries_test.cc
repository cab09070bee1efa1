#include "worker/layers/index_queries.h"

#include <cstdint>

#include "gtest/gtest.h"

#include "model/config/model_config.h"
#include "tests/testing/config_documents.h"

namespace tessera::worker {
namespace {

using testing::PublishedConfig;

TEST(IndexQueries, AreMadeFromTheFirstTokenOnThatIsNotSelected) {
  const IndexQueries queries(PublishedConfig("deepseek_v3.2"), 0);
  EXPECT_FALSE(queries.AreMade(0));
  EXPECT_FALSE(queries.AreMade(2048));
  EXPECT_TRUE(queries.AreMade(2049));
}

TEST(IndexQueries, CountEntriesThatAreComplete) {
  const model::ModelConfig config = PublishedConfig("deepseek_v4_flash");
  int64_t layer = 0;
  while (config.compressed.ratios[static_cast<size_t>(layer)] != 4) {
    ++layer;
  }
  const IndexQueries queries(config, layer);
  EXPECT_FALSE(queries.AreMade(4 * (config.indexer.topk + 1) - 1));
  EXPECT_TRUE(queries.AreMade(4 * (config.indexer.topk + 1)));
}

TEST(IndexQueries, AreAlwaysMadeByTheLayerThatNamesCandidates) {
  const model::ModelConfig config = PublishedConfig("deepseek_v4.1_flash");
  const int64_t source = config.compressed.candidate_source;
  ASSERT_GE(source, 0);
  EXPECT_TRUE(IndexQueries(config, source).AreMade(1));
  for (const int64_t other : config.compressed.index_sources) {
    if (other != source && other >= 0) {
      EXPECT_FALSE(IndexQueries(config, other).AreMade(1)) << other;
    }
  }
}

}  // namespace
}  // namespace tessera::worker
