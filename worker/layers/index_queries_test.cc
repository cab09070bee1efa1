#include "worker/layers/index_queries.h"

#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>

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
  return *config;
}

TEST(IndexQueries, AreMadeFromTheFirstTokenOnThatIsNotSelected) {
  const IndexQueries queries(Config("deepseek_v3.2.json"), 0);
  EXPECT_FALSE(queries.AreMade(0));
  EXPECT_FALSE(queries.AreMade(2048));
  EXPECT_TRUE(queries.AreMade(2049));
}

TEST(IndexQueries, CountEntriesThatAreComplete) {
  const model::ModelConfig config = Config("deepseek_v4_flash.json");
  int64_t layer = 0;
  while (config.compressed.ratios[static_cast<size_t>(layer)] != 4) {
    ++layer;
  }
  const IndexQueries queries(config, layer);
  EXPECT_FALSE(queries.AreMade(4 * (config.indexer.topk + 1) - 1));
  EXPECT_TRUE(queries.AreMade(4 * (config.indexer.topk + 1)));
}

TEST(IndexQueries, AreAlwaysMadeByTheLayerThatNamesCandidates) {
  const model::ModelConfig config = Config("deepseek_v4.1_flash.json");
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
