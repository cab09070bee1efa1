// Invariants 1 and 2 of the design on the small models of the published families: what a
// sequence computes has the same bits alone, in a batch, over any group, in chunks and
// after a prefix hit. same_bits_test.cc has the demo model in full depth.
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cli/loaded_model.h"
#include "cli/rank_assembly.h"
#include "gtest/gtest.h"

#include "common/clock.h"
#include "model/tensors/checkpoint.h"
#include "tests/integration/group_harness.h"

namespace tessera {
namespace {

using ::tessera::testing::GroupHarness;
using ::tessera::testing::HarnessOptions;
using ::tessera::testing::SequenceOutput;

constexpr int64_t kNumTokens = 4;

class FamilyBits : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string folder = std::string("tests/data/") + GetParam();
    auto model = cli::LoadModel(folder);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    auto engram = cli::ResidentEngram(*model_, Clock::Real());
    ASSERT_TRUE(engram.ok()) << engram.status();
    engram_ = *std::move(engram);
    MakePrompts(folder);
    HarnessOptions options = Options(1, 1, 512);
    options.prefix_caching = false;
    auto harness = GroupHarness::Create(*model_, options, engram_);
    ASSERT_TRUE(harness.ok()) << harness.status();
    for (const std::vector<int32_t>& prompt : prompts_) {
      auto output = (*harness)->Run({prompt}, kNumTokens);
      ASSERT_TRUE(output.ok()) << output.status();
      baseline_.push_back(output->front());
    }
  }

  // Around the block size, past the indexer's top-k and the longest recorded; every other
  // one starts like the longest.
  void MakePrompts(const std::string& folder) {
    const auto golden = model::Checkpoint::OpenFile(folder + "/golden.safetensors");
    ASSERT_TRUE(golden.ok()) << golden.status();
    const auto tensor = (*golden)->Find("prompt331.ids");
    ASSERT_TRUE(tensor.ok()) << tensor.status();
    const auto* ids = reinterpret_cast<const int32_t*>(tensor->data.data());
    for (const int length : {1, 2, 5, 15, 16, 17, 47, 48, 49, 65, 127, 128, 160, 331}) {
      const int begin = length % 2 == 1 ? 0 : 3;
      prompts_.emplace_back(ids + begin, ids + begin + length);
    }
  }

  static HarnessOptions Options(int tp, int dp, int64_t chunk) {
    HarnessOptions options;
    options.shape = {.tp = tp, .dp = dp};
    options.rank.runner.num_blocks = 512;
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

  std::unique_ptr<cli::LoadedModel> model_;
  cli::EngramSourceFactory engram_;
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
    auto harness = GroupHarness::Create(*model_, options, engram_);
    ASSERT_TRUE(harness.ok()) << harness.status();
    auto outputs = (*harness)->Run(prompts_, kNumTokens);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    ExpectBaseline(*outputs);
  }
}

TEST_P(FamilyBits, HoldAfterAPrefixHit) {
  auto harness = GroupHarness::Create(*model_, Options(2, 1, 64), engram_);
  ASSERT_TRUE(harness.ok()) << harness.status();
  for (int round = 0; round < 2; ++round) {
    auto outputs = (*harness)->Run(prompts_, kNumTokens);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    ExpectBaseline(*outputs);
    if (round == 1) {
      // The longest prompt finds its full blocks in the cache.
      EXPECT_GE(outputs->back().cached_tokens, 320);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyBits, ::testing::Values("v3", "v3_bf16", "v32"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace tessera
