#include "cli/model_options.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/cell_options.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "common/option_table.h"
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

TEST(RankOptions, DecodeStepsAreGraphsWhereTheyAreTurnedOn) {
  const model::ModelConfig config = Config("deepseek_v3.2");
  ModelOptions options = Options(int64_t{1} << 32);
  EXPECT_FALSE(RankOptionsOf(options, config, 1)->runner.decode_graphs);
  options.decode_graphs = "auto";
  options.decode_graph_time = absl::Seconds(7);
  options.decode_graph_mib = 3;
  const auto rank = RankOptionsOf(options, config, 1);
  ASSERT_THAT(rank, IsOk());
  EXPECT_TRUE(rank->runner.decode_graphs);
  EXPECT_EQ(rank->runner.decode_graph_time, absl::Seconds(7));
  EXPECT_EQ(rank->runner.decode_graph_bytes, 3 << 20);
  options.decode_graphs = "off";
  EXPECT_FALSE(RankOptionsOf(options, config, 1)->runner.decode_graphs);
  options.decode_graphs = "auto";
  options.enforce_eager = true;
  EXPECT_FALSE(RankOptionsOf(options, config, 1)->runner.decode_graphs);
}

TEST(RankOptions, ExchangesOverlapUnlessThatIsTurnedOff) {
  const model::ModelConfig config = Config("deepseek_v3.2");
  ModelOptions options = Options(int64_t{1} << 32);
  EXPECT_TRUE(RankOptionsOf(options, config, 1)->runner.exchange_rounds.has_value());
  options.exchange_overlap = "off";
  EXPECT_FALSE(RankOptionsOf(options, config, 1)->runner.exchange_rounds.has_value());
}

TEST(ModelOptions, EnforceEagerTurnsGraphsOffAsOtherServersSpellIt) {
  ModelOptions options;
  OptionTable table("serve", "");
  AddModelOptions(&table, &options);
  const auto nothing = [](const std::string&) { return std::optional<std::string>(); };
  const std::vector<std::string> arguments = {"--enforce-eager", "--decode-graph-time",
                                              "2.5", "--decode-graph-mib", "7"};
  ASSERT_THAT(table.Parse(arguments, nothing), IsOk());
  EXPECT_TRUE(options.enforce_eager);
  EXPECT_EQ(options.decode_graph_time, absl::Milliseconds(2500));
  EXPECT_EQ(options.decode_graph_mib, 7);
}

TEST(ModelOptions, NumaIsOffAndNothingIsPinnedUnlessTyped) {
  ModelOptions options;
  OptionTable table("serve", "");
  AddModelOptions(&table, &options);
  EXPECT_EQ(options.numa.mode, "off");
  EXPECT_FALSE(options.numa.asks());
  EXPECT_FALSE(
      RankOptionsOf(Options(int64_t{1} << 32), Config("deepseek_v3"), 1)->pin_threads);
  const auto nothing = [](const std::string&) { return std::optional<std::string>(); };
  const std::vector<std::string> arguments = {"--numa", "interleave", "--pin-threads"};
  ASSERT_THAT(table.Parse(arguments, nothing), IsOk());
  EXPECT_EQ(options.numa.mode, "interleave");
  EXPECT_TRUE(options.numa.pin_threads);
  options.kv_cache_memory_bytes = int64_t{1} << 32;
  options.max_model_len = 8192;
  EXPECT_TRUE(RankOptionsOf(options, Config("deepseek_v3"), 1)->pin_threads);
}

TEST(ShapeOf, RanksThatAreThreadsAreNeitherBoundNorPinned) {
  ModelOptions options;
  options.tensor_parallel_size = 2;
  options.numa.mode = "interleave";
  EXPECT_THAT(ShapeOf(options), IsOk());
  options.numa.mode = "bind";
  EXPECT_THAT(ShapeOf(options),
              StatusIs(kInvalid, ::testing::HasSubstr("--numa bind with 2 ranks")));
  options.numa = {.mode = "off", .pin_threads = true};
  EXPECT_THAT(ShapeOf(options),
              StatusIs(kInvalid, ::testing::HasSubstr("give --workers 2")));
  options.numa = {.mode = "bind", .pin_threads = true};
  options.workers = 2;
  options.comm = "mpi";
  EXPECT_THAT(ShapeOf(options), IsOk());
  options.backend = "cuda";
  EXPECT_THAT(ShapeOf(options),
              StatusIs(kInvalid, ::testing::HasSubstr("--backend cpu only, got cuda")));
}

TEST(PlaceRank, ThreadsThatAreGivenStay) {
  ModelOptions options;
  options.threads_per_rank = 1;
  options.numa.pin_threads = true;
  EXPECT_THAT(PlaceRank(&options), IsOk());
  EXPECT_EQ(options.threads_per_rank, 1);
  options.threads_per_rank = 0;
  EXPECT_THAT(PlaceRank(&options), IsOk());
  EXPECT_GE(options.threads_per_rank, 1) << "the CPUs that this process may run on";
  options.threads_per_rank = 1024;
  EXPECT_THAT(CheckRankPlacement(options, 64), StatusIs(kInvalid));
}

TEST(ShapeOf, NodesHaveEqualNumbersOfRanks) {
  ModelOptions options;
  options.tensor_parallel_size = 2;
  options.data_parallel_size = 3;
  options.ranks_per_node = 3;
  const auto shape = ShapeOf(options);
  ASSERT_THAT(shape, IsOk());
  EXPECT_EQ(shape->num_ranks(), 6);
  EXPECT_EQ(shape->ranks_per_node, 3);
  options.ranks_per_node = 4;
  EXPECT_THAT(ShapeOf(options), StatusIs(kInvalid));
}

// 656 + 132 B in place of 4 (576 + 128) for each of 61 layers and the draft layer.
TEST(RankOptions, PackedRowsFitThreeAndAHalfTimesAsManyTokensOfV32) {
  ModelOptions options = Options(int64_t{1} << 32);
  const model::ModelConfig config = Config("deepseek_v3.2");
  const auto plain = RankOptionsOf(options, config, 1);
  ASSERT_THAT(plain, IsOk());
  EXPECT_EQ(plain->runner.num_blocks, (int64_t{1} << 32) / (62 * 16 * 4 * (576 + 128)));
  EXPECT_EQ(NumericsIdOf(*plain), "cpu/f32");
  options.kv_cache_dtype = "fp8";
  const auto packed = RankOptionsOf(options, config, 1);
  ASSERT_THAT(packed, IsOk());
  EXPECT_EQ(packed->runner.num_blocks, (int64_t{1} << 32) / (62 * 16 * (656 + 132)));
  EXPECT_EQ(NumericsIdOf(*packed), "cpu/f32+kv-fp8");
}

// 21 layers of 32 entries and keys, 20 of one entry; raw rows stay float32.
TEST(RankOptions, PackedBlocksOfV4ShrinkMoreThanItsTailBlocks) {
  ModelOptions options = Options(int64_t{1} << 30);
  options.kv_cache_dtype = "fp8";
  const auto rank = RankOptionsOf(options, Config("deepseek_v4_flash"), 1);
  ASSERT_THAT(rank, IsOk());
  constexpr int64_t kBlock = 21 * 32 * (584 + 68) + 20 * 584;
  constexpr int64_t kTail = 128 * (44 * 584 + 4 * (21 * 2560 + 20 * 1024));
  const int64_t tails = (int64_t{1} << 29) / kTail;
  EXPECT_EQ(rank->runner.num_tail_blocks, tails);
  EXPECT_EQ(rank->runner.num_blocks, ((int64_t{1} << 30) - tails * kTail) / kBlock);
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
