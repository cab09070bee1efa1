#include "cli/model_options.h"

#include <cstdint>
#include <string>

#include "gtest/gtest.h"

#include "model/config/model_config.h"
#include "tests/testing/config_documents.h"
#include "tests/testing/status_matchers.h"

namespace tessera::cli {
namespace {

using testing::IsOk;
using testing::ReadText;
using testing::StatusIs;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

model::ModelConfig Config(const std::string& name) {
  return *model::ParseModelConfig(ReadText("tests/data/configs/" + name + ".json"));
}

ModelOptions Options(int64_t memory_bytes) {
  ModelOptions options;
  options.max_model_len = 8192;
  options.kv_cache_memory_bytes = memory_bytes;
  return options;
}

// A block of 128 tokens: 21 layers of (512 + 128) / 4 values a token and 20 of 512 / 128,
// float32. Its tail block: 44 window rows (one of the draft), 21 times (1024 + 256)
// values and gates, 20 times 512 of each.
constexpr int64_t kFlashBlock = int64_t{128} * 4 * (21 * 160 + 20 * 4);
constexpr int64_t kFlashTail = int64_t{128} * 4 * (44 * 512 + 21 * 2560 + 20 * 1024);

TEST(RankOptions, CacheMemoryOfV4IsSplitBetweenBlocksAndTailBlocks) {
  const auto rank =
      RankOptionsOf(Options(int64_t{1} << 30), Config("deepseek_v4_flash"), 1);
  ASSERT_THAT(rank, IsOk());
  EXPECT_EQ(rank->runner.block_size, 128);
  const int64_t tails = (int64_t{1} << 29) / kFlashTail;
  EXPECT_EQ(rank->runner.num_tail_blocks, tails);
  EXPECT_EQ(rank->runner.num_blocks,
            ((int64_t{1} << 30) - tails * kFlashTail) / kFlashBlock);
}

TEST(RankOptions, BlocksOfV4HoldWholeEntries) {
  ModelOptions options = Options(int64_t{1} << 30);
  options.block_size = 64;
  EXPECT_THAT(RankOptionsOf(options, Config("deepseek_v4_flash"), 1), StatusIs(kInvalid));
  options.block_size = 256;
  EXPECT_THAT(RankOptionsOf(options, Config("deepseek_v4_flash"), 1), IsOk());
}

TEST(RankOptions, AStepHoldsADraftBlock) {
  const model::ModelConfig config = Config("deepseek_v4_flash_0731");
  ModelOptions options = Options(int64_t{1} << 30);
  options.max_num_batched_tokens = config.dspark->block_size - 1;
  EXPECT_THAT(RankOptionsOf(options, config, 1), IsOk()) << "nothing is drafted";
  options.speculative.tokens = 1;
  EXPECT_THAT(RankOptionsOf(options, config, 1), StatusIs(kInvalid));
  ++options.max_num_batched_tokens;
  EXPECT_THAT(RankOptionsOf(options, config, 1), IsOk());
}

TEST(RankOptions, ModelsWithoutTailsHaveSmallBlocksAndNoTailBlocks) {
  ModelOptions options = Options(int64_t{1} << 32);
  const auto rank = RankOptionsOf(options, Config("deepseek_v3"), 1);
  ASSERT_THAT(rank, IsOk());
  EXPECT_EQ(rank->runner.block_size, 16);
  EXPECT_EQ(rank->runner.num_tail_blocks, 0);
  options.num_tail_blocks = 3;
  EXPECT_THAT(RankOptionsOf(options, Config("deepseek_v3"), 1), StatusIs(kInvalid));
}

}  // namespace
}  // namespace tessera::cli
