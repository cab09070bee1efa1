// Invariants 1 and 2 of the design on the small models of the published families: what a
// sequence computes has the same bits alone, in a batch, over any group, in chunks and
// after a prefix hit. same_bits_test.cc has the demo model in full depth.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

#include "tests/integration/family_model.h"
#include "tests/integration/group_harness.h"
#include "worker/layers/cache_layout.h"

namespace tessera {
namespace {

using ::tessera::testing::Family;
using ::tessera::testing::FamilyModel;
using ::tessera::testing::GroupHarness;
using ::tessera::testing::HarnessOptions;
using ::tessera::testing::SequenceOutput;

constexpr int64_t kNumTokens = 4;
constexpr int64_t kMaxCachedTokens = 8192;

class FamilyBits : public ::testing::TestWithParam<Family> {
 protected:
  void SetUp() override {
    auto model = FamilyModel::Load(GetParam().name);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    MakePrompts();
    HarnessOptions options = Options(1, 1, 512);
    options.prefix_caching = false;
    auto harness = GroupHarness::Create(*model_.model, options, model_.engram);
    ASSERT_TRUE(harness.ok()) << harness.status();
    for (const std::vector<int32_t>& prompt : prompts_) {
      auto output = (*harness)->Run({prompt}, kNumTokens);
      ASSERT_TRUE(output.ok()) << output.status();
      baseline_.push_back(output->front());
    }
  }

  // Around the block sizes, the window and the ratios of entries, past the indexer's
  // top-k and the longest recorded; those of odd length start like the longest.
  void MakePrompts() {
    const std::vector<int32_t>& ids = model_.ids;
    for (const int length :
         {1, 3, 4, 5, 9, 16, 48, 126, 127, 128, 129, 130, 131, 257, 331}) {
      const int begin = length % 2 == 1 ? 0 : 3;
      prompts_.emplace_back(ids.begin() + begin, ids.begin() + begin + length);
    }
  }

  HarnessOptions Options(int tp, int dp, int64_t chunk) const {
    HarnessOptions options;
    options.shape = {.tp = tp, .dp = dp};
    options.rank.runner.block_size = GetParam().block_size;
    options.rank.runner.kv_cache_dtype = GetParam().kv_cache_dtype;
    options.rank.runner.num_blocks = kMaxCachedTokens / GetParam().block_size;
    if (model_.model->config.tail_tokens() > 0) {
      options.rank.runner.num_tail_blocks = options.rank.runner.num_blocks;
    }
    options.max_batched_tokens = chunk;
    return options;
  }

  void ExpectBaseline(const std::vector<SequenceOutput>& outputs) const {
    ASSERT_EQ(outputs.size(), baseline_.size());
    for (size_t i = 0; i < outputs.size(); ++i) {
      EXPECT_EQ(outputs[i].tokens, baseline_[i].tokens) << "prompt " << i;
      int64_t compared = 0;
      for (const auto& [position, hash] : outputs[i].logits_of_position) {
        const auto it = baseline_[i].logits_of_position.find(position);
        // Planning ahead may compute one token more than the other run did.
        if (it != baseline_[i].logits_of_position.end()) {
          ++compared;
          ASSERT_EQ(hash, it->second) << "prompt " << i << " position " << position;
        }
      }
      const auto positions = static_cast<int64_t>(prompts_[i].size()) + kNumTokens - 1;
      EXPECT_GE(compared, positions - outputs[i].cached_tokens) << "prompt " << i;
    }
  }

  FamilyModel model_;
  std::vector<std::vector<int32_t>> prompts_;
  std::vector<SequenceOutput> baseline_;
};

TEST_P(FamilyBits, HoldInABatchOverAnyGroupAndChunk) {
  for (const auto& [tp, dp, chunk] :
       {std::tuple{1, 1, 512}, {1, 1, 7}, {2, 1, 64}, {4, 1, 24}, {2, 2, 100}}) {
    SCOPED_TRACE(::testing::Message()
                 << "tp " << tp << " dp " << dp << " chunk " << chunk);
    HarnessOptions options = Options(tp, dp, chunk);
    options.prefix_caching = false;
    auto harness = GroupHarness::Create(*model_.model, options, model_.engram);
    ASSERT_TRUE(harness.ok()) << harness.status();
    auto outputs = (*harness)->Run(prompts_, kNumTokens);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    ExpectBaseline(*outputs);
  }
}

TEST_P(FamilyBits, HoldAfterAPrefixHit) {
  auto harness = GroupHarness::Create(*model_.model, Options(2, 1, 64), model_.engram);
  ASSERT_TRUE(harness.ok()) << harness.status();
  for (int round = 0; round < 2; ++round) {
    auto outputs = (*harness)->Run(prompts_, kNumTokens);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    ExpectBaseline(*outputs);
    if (round == 1) {
      // The longest prompt finds its full blocks in the cache.
      EXPECT_GE(outputs->back().cached_tokens,
                330 / GetParam().block_size * GetParam().block_size);
    }
  }
}

TEST_P(FamilyBits, HoldAfterAPrefixHitThatEndsAtAnyBlock) {
  const int64_t block_size = GetParam().block_size;
  const std::vector<int32_t>& longest = prompts_.back();
  for (int64_t shared = block_size; shared < 331;
       shared += std::max<int64_t>(block_size, 64)) {
    SCOPED_TRACE(::testing::Message() << shared << " tokens in common");
    auto harness = GroupHarness::Create(*model_.model, Options(1, 1, 128), model_.engram);
    ASSERT_TRUE(harness.ok()) << harness.status();
    std::vector<int32_t> other(longest.begin(), longest.begin() + shared);
    other.push_back(longest[static_cast<size_t>(shared)] == 7 ? 8 : 7);
    ASSERT_TRUE((*harness)->Run({other}, 1).ok());
    auto outputs = (*harness)->Run({longest}, kNumTokens);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    EXPECT_EQ(outputs->front().cached_tokens, shared);
    EXPECT_EQ(outputs->front().tokens, baseline_.back().tokens);
    for (const auto& [position, hash] : outputs->front().logits_of_position) {
      const auto it = baseline_.back().logits_of_position.find(position);
      if (it != baseline_.back().logits_of_position.end()) {
        ASSERT_EQ(hash, it->second) << "position " << position;
      }
    }
  }
}

// Families that keep tail blocks.
class TailFamilyBits : public FamilyBits {};

// Sequences wait, lose the tails of cached prefixes and are preempted.
TEST_P(TailFamilyBits, HoldWhereTailBlocksAreScarce) {
  HarnessOptions options = Options(1, 1, 64);
  const int64_t tail = model_.model->config.tail_tokens();
  // Enough for two sequences with their chunks.
  options.rank.runner.num_tail_blocks =
      2 * ((tail + 64 + GetParam().block_size - 1) / GetParam().block_size + 1);
  auto harness = GroupHarness::Create(*model_.model, options, model_.engram);
  ASSERT_TRUE(harness.ok()) << harness.status();
  for (int round = 0; round < 2; ++round) {
    auto outputs = (*harness)->Run(prompts_, kNumTokens);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    ExpectBaseline(*outputs);
  }
}

constexpr Family kMlaFamilies[] = {{"v3", 16}, {"v3_bf16", 16}, {"v32", 16}};
constexpr Family kTailFamilies[] = {{"v4", 128}, {"v4_0731", 128}, {"v41", 16}};
constexpr Family kPackedFamilies[] = {{"v32", 16, worker::KvCacheDtype::kFp8},
                                      {"v4", 128, worker::KvCacheDtype::kFp8},
                                      {"v41", 16, worker::KvCacheDtype::kFp8}};

std::string NameOf(const ::testing::TestParamInfo<Family>& test) {
  return test.param.name;
}

INSTANTIATE_TEST_SUITE_P(Mla, FamilyBits, ::testing::ValuesIn(kMlaFamilies), NameOf);
INSTANTIATE_TEST_SUITE_P(Tail, FamilyBits, ::testing::ValuesIn(kTailFamilies), NameOf);
INSTANTIATE_TEST_SUITE_P(Packed, FamilyBits, ::testing::ValuesIn(kPackedFamilies),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(Tail, TailFamilyBits, ::testing::ValuesIn(kTailFamilies),
                         NameOf);

}  // namespace
}  // namespace tessera
