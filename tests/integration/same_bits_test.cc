// Invariants 1 and 2 of the design on the demo model: the logits of 20 prompts have the
// same bits at any tensor and data parallelism, batch, prefill chunk, prefix hit and
// Engram source.
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "cli/cell_options.h"
#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"
#include "fmt/format.h"
#include "gtest/gtest.h"

#include "common/clock.h"
#include "engram_store/service/engram_server.h"
#include "engram_store/service/engram_shard.h"
#include "engram_store/table/checkpoint_tables.h"
#include "engram_store/table/shared_segment.h"
#include "model/tensors/checkpoint.h"
#include "tests/integration/group_harness.h"
#include "worker/layers/cache_layout.h"

namespace tessera {
namespace {

using ::tessera::testing::GroupHarness;
using ::tessera::testing::HarnessOptions;
using ::tessera::testing::SequenceOutput;

constexpr int64_t kNumTokens = 4;

class SameBits : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto model = cli::LoadModel("models/demo");
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = model->release();
    auto engram = cli::ResidentEngram(*model_, Clock::Real());
    ASSERT_TRUE(engram.ok()) << engram.status();
    engram_ = new cli::EngramSourceFactory(*std::move(engram));
    prompts_ = new std::vector<std::vector<int32_t>>(MakePrompts());
    baseline_ = new std::vector<SequenceOutput>();
    // One prompt at a time, one rank, the whole prompt in one step.
    HarnessOptions options = Options(1, 1, 512);
    options.prefix_caching = false;
    auto harness = GroupHarness::Create(*model_, options, *engram_);
    ASSERT_TRUE(harness.ok()) << harness.status();
    for (const std::vector<int32_t>& prompt : *prompts_) {
      auto output = (*harness)->Run({prompt}, kNumTokens);
      ASSERT_TRUE(output.ok()) << output.status();
      ASSERT_EQ(output->front().tokens.size(), static_cast<size_t>(kNumTokens));
      baseline_->push_back(output->front());
    }
  }

  static void TearDownTestSuite() {
    delete baseline_;
    delete prompts_;
    delete engram_;
    delete model_;
  }

  static HarnessOptions Options(int tp, int dp, int64_t chunk) {
    HarnessOptions options;
    options.shape = {.tp = tp, .dp = dp};
    options.rank.runner.num_blocks = 512;
    options.max_batched_tokens = chunk;
    return options;
  }

  // Cuts of recorded prompts: 20 of them, 1 to 150 tokens, some with a common beginning.
  static std::vector<std::vector<int32_t>> MakePrompts() {
    const auto golden = model::Checkpoint::OpenFile("tests/data/demo/golden.safetensors");
    EXPECT_TRUE(golden.ok()) << golden.status();
    const auto tensor = (*golden)->Find("prompt300.ids");
    const auto* ids = reinterpret_cast<const int32_t*>(tensor->data.data());
    std::vector<std::vector<int32_t>> prompts;
    for (const int length :
         {1, 2, 3, 5, 8, 13, 16, 17, 21, 31, 32, 33, 34, 47, 48, 64, 65, 79, 128, 150}) {
      const int begin = length % 3 == 0 ? 0 : length;
      prompts.emplace_back(ids + begin, ids + begin + length);
    }
    return prompts;
  }

  // `require_all`: every position was computed (no prefix hit took it away).
  static void ExpectBaseline(const std::vector<SequenceOutput>& outputs,
                             bool require_all) {
    ExpectSame(outputs, *baseline_, require_all);
  }

  static void ExpectSame(const std::vector<SequenceOutput>& outputs,
                         const std::vector<SequenceOutput>& all_expected,
                         bool require_all) {
    ASSERT_EQ(outputs.size(), all_expected.size());
    for (size_t i = 0; i < outputs.size(); ++i) {
      const SequenceOutput& expected = all_expected[i];
      EXPECT_EQ(outputs[i].tokens, expected.tokens) << "prompt " << i;
      size_t compared = 0;
      for (const auto& [position, hash] : outputs[i].logits_of_position) {
        const auto it = expected.logits_of_position.find(position);
        // Run-ahead computes one token past the end; the baseline may have stopped before
        // it.
        if (it != expected.logits_of_position.end()) {
          ++compared;
          ASSERT_EQ(hash, it->second) << "prompt " << i << " position " << position;
        }
      }
      const size_t needed = require_all ? (*prompts_)[i].size() + kNumTokens - 1 : 1;
      EXPECT_GE(compared, needed) << "prompt " << i;
    }
  }

  static void RunAll(const HarnessOptions& options, bool require_all) {
    auto harness = GroupHarness::Create(*model_, options, *engram_);
    ASSERT_TRUE(harness.ok()) << harness.status();
    auto outputs = (*harness)->Run(*prompts_, kNumTokens);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    ExpectBaseline(*outputs, require_all);
  }

  static cli::LoadedModel* model_;
  static cli::EngramSourceFactory* engram_;
  static std::vector<std::vector<int32_t>>* prompts_;
  static std::vector<SequenceOutput>* baseline_;
};

cli::LoadedModel* SameBits::model_ = nullptr;
cli::EngramSourceFactory* SameBits::engram_ = nullptr;
std::vector<std::vector<int32_t>>* SameBits::prompts_ = nullptr;
std::vector<SequenceOutput>* SameBits::baseline_ = nullptr;

TEST_F(SameBits, AtAnyTensorAndDataParallelism) {
  for (const int tp : {1, 2, 4, 8}) {
    for (const int dp : {1, 2}) {
      SCOPED_TRACE(fmt::format("tp {} dp {}", tp, dp));
      HarnessOptions options = Options(tp, dp, 512);
      options.prefix_caching = false;
      RunAll(options, true);
    }
  }
}

TEST_F(SameBits, OverNodesAndRails) {
  for (const cli::GroupShape& shape :
       {cli::GroupShape{.tp = 1, .dp = 4, .ranks_per_node = 2},
        cli::GroupShape{.tp = 2, .dp = 2, .ranks_per_node = 2},
        cli::GroupShape{.tp = 4, .dp = 2, .ranks_per_node = 2},
        cli::GroupShape{.tp = 4, .dp = 2, .ranks_per_node = 4}}) {
    SCOPED_TRACE(fmt::format("tp {} dp {}, {} per node", shape.tp, shape.dp,
                             shape.ranks_per_node));
    HarnessOptions options = Options(shape.tp, shape.dp, 512);
    options.shape = shape;
    options.prefix_caching = false;
    RunAll(options, true);
  }
}

TEST_F(SameBits, AtAnyPrefillChunk) {
  for (const int64_t chunk : {1, 7, 64}) {
    SCOPED_TRACE(fmt::format("chunk {}", chunk));
    HarnessOptions options = Options(1, 1, chunk);
    options.prefix_caching = false;
    RunAll(options, true);
  }
}

TEST_F(SameBits, AtAnyBatchSize) {
  for (const int64_t batch : {2, 5, 32}) {
    SCOPED_TRACE(fmt::format("batch {}", batch));
    HarnessOptions options = Options(1, 1, 512);
    options.max_sequences = batch;
    options.prefix_caching = false;
    RunAll(options, true);
  }
}

TEST_F(SameBits, WithAPrefixHit) {
  auto harness = GroupHarness::Create(*model_, Options(2, 1, 64), *engram_);
  ASSERT_TRUE(harness.ok()) << harness.status();
  for (int round = 0; round < 2; ++round) {
    auto outputs = (*harness)->Run(*prompts_, kNumTokens);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    ExpectBaseline(*outputs, false);
    if (round == 1) {
      // The longest prompt finds its full blocks in the cache.
      EXPECT_GE(outputs->back().cached_tokens, 128);
    }
  }
}

// Other numerics give numbers of their own, which are as independent of the rest.
void SetPackedRows(cli::RankOptions* rank) {
  rank->runner.kv_cache_dtype = worker::KvCacheDtype::kFp8;
}
void SetInt8Experts(cli::RankOptions* rank) { rank->numerics = "int8-g32"; }
void SetRoundedWeights(cli::RankOptions* rank) { rank->numerics = "w8a8-g32"; }

TEST_F(SameBits, OfOtherNumerics) {
  const std::pair<const char*, void (*)(cli::RankOptions*)> kOthers[] = {
      {"packed rows", SetPackedRows},
      {"int8-g32", SetInt8Experts},
      {"w8a8-g32", SetRoundedWeights}};
  for (const auto& [name, set] : kOthers) {
    SCOPED_TRACE(name);
    HarnessOptions options = Options(1, 1, 512);
    set(&options.rank);
    options.prefix_caching = false;
    auto alone = GroupHarness::Create(*model_, options, *engram_);
    ASSERT_TRUE(alone.ok()) << alone.status();
    std::vector<SequenceOutput> expected;
    for (const std::vector<int32_t>& prompt : *prompts_) {
      auto output = (*alone)->Run({prompt}, kNumTokens);
      ASSERT_TRUE(output.ok()) << output.status();
      expected.push_back(output->front());
    }
    EXPECT_NE(expected.back().logits_of_position, baseline_->back().logits_of_position);
    for (const auto& [tp, dp, chunk] : {std::tuple{2, 1, 7}, {4, 2, 64}}) {
      SCOPED_TRACE(fmt::format("tp {} dp {} chunk {}", tp, dp, chunk));
      options = Options(tp, dp, chunk);
      set(&options.rank);
      auto harness = GroupHarness::Create(*model_, options, *engram_);
      ASSERT_TRUE(harness.ok()) << harness.status();
      for (int round = 0; round < 2; ++round) {
        auto outputs = (*harness)->Run(*prompts_, kNumTokens);
        ASSERT_TRUE(outputs.ok()) << outputs.status();
        ExpectSame(*outputs, expected, false);
      }
    }
  }
}

// Two shards of the model's tables, served by this process.
std::vector<std::unique_ptr<engram_store::EngramServer>> StartShards(
    const cli::LoadedModel& model, const std::string& token) {
  constexpr uint32_t kNumShards = 2;
  std::vector<std::unique_ptr<engram_store::EngramServer>> servers;
  for (uint32_t shard = 0; shard < kNumShards; ++shard) {
    engram_store::PackOptions pack;
    pack.shard = {shard, kNumShards};
    pack.shared_memory = true;
    pack.prefix_bytes = engram_store::kSegmentHeaderBytes;
    auto tables = engram_store::LoadEngramTables(model.config, *model.hash,
                                                 *model.checkpoint, pack);
    EXPECT_TRUE(tables.ok()) << tables.status();
    auto parts = engram_store::EngramShard::Create({}, std::move(tables->manifest),
                                                   std::move(tables->tables));
    EXPECT_TRUE(parts.ok()) << parts.status();
    auto server = engram_store::EngramServer::Create({.auth_token = token}, Clock::Real(),
                                                     *std::move(parts));
    EXPECT_TRUE(server.ok()) << server.status();
    servers.push_back(*std::move(server));
  }
  return servers;
}

TEST_F(SameBits, WithEngramInSharedMemoryAndOverGrpc) {
  const std::string token = "same bits";
  const auto servers = StartShards(*model_, token);
  for (const char* source : {"shm", "remote"}) {
    SCOPED_TRACE(source);
    cli::EngramOptions engram;
    engram.source = source;
    for (const auto& server : servers) {
      engram.shard_addresses.push_back(server->address());
    }
    HarnessOptions options = Options(2, 1, 64);
    options.prefix_caching = false;
    auto harness = GroupHarness::Create(*model_, options, [&](int) {
      return cli::OpenEngramSource(*model_, engram, token,
                                   Clock::Real()->Now() + absl::Seconds(20),
                                   Clock::Real());
    });
    ASSERT_TRUE(harness.ok()) << harness.status();
    auto outputs = (*harness)->Run(*prompts_, kNumTokens);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    ExpectBaseline(*outputs, true);
  }
}

TEST_F(SameBits, WithAnyNumberOfThreads) {
  HarnessOptions options = Options(1, 1, 64);
  options.prefix_caching = false;
  options.rank.num_threads = 3;
  RunAll(options, true);
}

}  // namespace
}  // namespace tessera
