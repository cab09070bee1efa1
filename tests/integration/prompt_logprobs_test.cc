// Log-probabilities of a prompt are those that its tokens had, or would have had, when
// they were generated: bit for bit, over tensor and data parallelism, chunks and batches,
// and although the same prompt lies in the prefix cache.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <tuple>
#include <vector>

#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"
#include "fmt/format.h"
#include "gtest/gtest.h"

#include "common/clock.h"
#include "coordinator/scheduler/scheduler.h"
#include "model/tensors/checkpoint.h"
#include "tests/integration/group_harness.h"

namespace tessera {
namespace {

using ::tessera::coordinator::SequenceSpec;
using ::tessera::testing::GroupHarness;
using ::tessera::testing::HarnessOptions;
using ::tessera::testing::SequenceOutput;

constexpr int64_t kNumTokens = 10;
constexpr int32_t kTop = 3;

class PromptLogprobs : public ::testing::Test {
 protected:
  void SetUp() override {
    auto loaded = cli::LoadModel("models/demo");
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    model_ = *std::move(loaded);
    auto engram = cli::ResidentEngram(*model_, Clock::Real());
    ASSERT_TRUE(engram.ok()) << engram.status();
    engram_ = *std::move(engram);
  }

  std::unique_ptr<GroupHarness> Make(int tp, int dp, int64_t chunk, int64_t drafts) {
    HarnessOptions options;
    options.shape = {.tp = tp, .dp = dp};
    options.rank.runner.num_blocks = 256;
    options.rank.runner.num_speculative_tokens = drafts;
    options.max_batched_tokens = chunk;
    options.record_logits = false;
    auto harness = GroupHarness::Create(*model_, options, engram_);
    EXPECT_TRUE(harness.ok()) << harness.status();
    return *std::move(harness);
  }

  static std::vector<SequenceSpec> Prompts() {
    const auto golden = model::Checkpoint::OpenFile("tests/data/demo/golden.safetensors");
    EXPECT_TRUE(golden.ok()) << golden.status();
    const auto tensor = (*golden)->Find("prompt300.ids");
    const auto* ids = reinterpret_cast<const int32_t*>(tensor->data.data());
    std::vector<SequenceSpec> specs;
    for (const int length : {1, 2, 15, 16, 40, 90}) {
      SequenceSpec spec;
      spec.prompt.assign(ids, ids + length);
      spec.max_tokens = kNumTokens;
      spec.sampling = {.temperature = 0.8f, .seed = 5, .num_logprobs = kTop};
      specs.push_back(std::move(spec));
    }
    return specs;
  }

  std::unique_ptr<cli::LoadedModel> model_;
  cli::EngramSourceFactory engram_;
};

TEST_F(PromptLogprobs, AreThoseOfGeneratingTheSameTokens) {
  const std::vector<SequenceSpec> prompts = Prompts();
  const auto generated = Make(1, 1, 512, 0)->Run(prompts);
  ASSERT_TRUE(generated.ok()) << generated.status();
  std::vector<SequenceSpec> continued = prompts;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const std::vector<int32_t>& tokens = (*generated)[i].tokens;
    continued[i].prompt.insert(continued[i].prompt.end(), tokens.begin(), tokens.end());
    continued[i].sampling.num_prompt_logprobs = kTop;
    continued[i].max_tokens = 2;
  }
  for (const auto& [tp, dp, chunk, drafts] :
       {std::tuple{1, 1, 512, 0}, {1, 1, 7, 2}, {2, 1, 33, 0}, {1, 2, 64, 3}}) {
    SCOPED_TRACE(fmt::format("tp {} dp {} chunk {} drafts {}", tp, dp, chunk, drafts));
    const auto harness = Make(tp, dp, chunk, drafts);
    for (int round = 0; round < 2; ++round) {
      const auto scored = harness->Run(continued);
      ASSERT_TRUE(scored.ok()) << scored.status();
      for (size_t i = 0; i < prompts.size(); ++i) {
        const SequenceOutput& output = (*scored)[i];
        EXPECT_EQ(output.cached_tokens, 0);
        ASSERT_EQ(output.prompt_scores.size(), continued[i].prompt.size() - 1);
        for (size_t t = 0; t < (*generated)[i].sampled.size(); ++t) {
          const proto::SampledToken& then = (*generated)[i].sampled[t];
          const proto::SampledToken& now =
              output.prompt_scores[prompts[i].prompt.size() + t - 1];
          EXPECT_EQ(now.position, then.position);
          EXPECT_EQ(now.token, then.token);
          EXPECT_EQ(now.logprob, then.logprob);
          EXPECT_EQ(now.top, then.top);
        }
      }
    }
  }
}

}  // namespace
}  // namespace tessera
