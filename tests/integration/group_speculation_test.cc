// Speculation gives the tokens of plain decoding: 200 prompts on the demo model, greedy
// and seeded, with and without penalties, stops and lengths, in batches, over tensor and
// data parallelism, with prefix hits and with too few blocks. What the draft layer is
// worth is printed.
#include <algorithm>
#include <cstdint>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "gtest/gtest.h"

#include "coordinator/scheduler/scheduler.h"
#include "tests/integration/family_model.h"
#include "tests/integration/group_harness.h"

namespace tessera {
namespace {

using ::tessera::coordinator::SequenceSpec;
using ::tessera::testing::Family;
using ::tessera::testing::FamilyModel;
using ::tessera::testing::GroupHarness;
using ::tessera::testing::HarnessOptions;
using ::tessera::testing::HarnessTotals;
using ::tessera::testing::SequenceOutput;

constexpr size_t kNumPrompts = 200;
constexpr uint64_t kSeed = 20;

// Cuts of a recorded prompt, some with a common beginning; of five one greedy, one
// seeded, one with each kind of truncation and penalty, one that stops early.
std::vector<SequenceSpec> MakeSpecs(const std::vector<int32_t>& ids) {
  std::mt19937_64 random(kSeed);
  std::vector<SequenceSpec> specs(kNumPrompts);
  for (size_t i = 0; i < kNumPrompts; ++i) {
    SequenceSpec& spec = specs[i];
    const size_t length = 1 + random() % 48;
    const size_t begin = i % 4 == 0 ? 0 : random() % (ids.size() - length);
    spec.prompt.assign(ids.begin() + static_cast<std::ptrdiff_t>(begin),
                       ids.begin() + static_cast<std::ptrdiff_t>(begin + length));
    spec.max_tokens = static_cast<int64_t>(1 + random() % 20);
    spec.sampling.seed = random();
    spec.sampling.choice_index = static_cast<uint32_t>(random() % 3);
    spec.sampling.temperature = i % 5 == 0 || i % 5 == 4 ? 0.0f : 0.8f;
    if (i % 7 == 3) {
      spec.sampling.bad_words = {{ids[0]}, {ids[1], ids[2]}, {ids[20], ids[21]}};
    }
    if (i % 11 == 5) {
      std::vector<int32_t>& allowed = spec.sampling.allowed_token_ids;
      allowed.assign(ids.begin(), ids.end());
      std::sort(allowed.begin(), allowed.end());
      allowed.erase(std::unique(allowed.begin(), allowed.end()), allowed.end());
    }
    if (i % 5 == 2) {
      spec.sampling.top_p = 0.9f;
      spec.sampling.top_k = 40;
    }
    if (i % 5 == 3) {
      spec.sampling.repetition_penalty = 1.1f;
      spec.sampling.presence_penalty = 0.4f;
      spec.sampling.frequency_penalty = 0.3f;
      spec.sampling.logit_bias = {{ids[7], 1.5f}};
    }
    if (i % 5 == 4) {
      // Tokens that occur everywhere: most of these sequences stop early.
      spec.sampling.stop_token_ids = {ids[3], ids[9], ids[17], ids[25], ids[40]};
      spec.sampling.min_tokens = static_cast<int32_t>(random() % 6);
    }
  }
  return specs;
}

class Speculation : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto model = FamilyModel::Load("demo");
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = new FamilyModel(*std::move(model));
    specs_ = new std::vector<SequenceSpec>(MakeSpecs(model_->ids));
    auto plain = Start(Options(1, 1, 0));
    ASSERT_NE(plain, nullptr);
    auto outputs = plain->Run(*specs_);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    expected_ = new std::vector<SequenceOutput>(*std::move(outputs));
    EXPECT_EQ(plain->totals().drafts.num_draft_tokens, 0u);
    Print("no drafts", plain->totals());
  }

  static void TearDownTestSuite() {
    delete expected_;
    delete specs_;
    delete model_;
  }

  static HarnessOptions Options(int tp, int dp, int64_t num_drafts) {
    HarnessOptions options;
    options.shape = {.tp = tp, .dp = dp};
    options.rank.runner.num_blocks = 512;
    options.rank.runner.num_speculative_tokens = num_drafts;
    options.max_batched_tokens = 256;
    options.record_logits = false;
    options.prefix_caching = false;
    return options;
  }

  static std::unique_ptr<GroupHarness> Start(const HarnessOptions& options) {
    auto harness = GroupHarness::Create(*model_->model, options, model_->engram);
    EXPECT_TRUE(harness.ok()) << harness.status();
    return harness.ok() ? *std::move(harness) : nullptr;
  }

  static void ExpectPlainTokens(GroupHarness* harness) {
    ASSERT_NE(harness, nullptr);
    const auto outputs = harness->Run(*specs_);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    ASSERT_EQ(outputs->size(), expected_->size());
    for (size_t i = 0; i < outputs->size(); ++i) {
      EXPECT_EQ((*outputs)[i].tokens, (*expected_)[i].tokens)
          << "prompt " << i << " of seed " << kSeed;
    }
  }

  // Acceptance by position and tokens per step.
  static void Print(const std::string& what, const HarnessTotals& totals) {
    const proto::StepCounters& drafts = totals.drafts;
    std::string positions;
    for (const uint32_t count : drafts.accepted_drafts) {
      if (count > 0) {
        positions += fmt::format(" {:.1f}%", 100.0 * count / drafts.num_drafts);
      }
    }
    std::cout << fmt::format("{}: {} tokens in {} steps; of {} drafts accepted:{}\n",
                             what, totals.num_tokens, totals.num_steps, drafts.num_drafts,
                             positions);
  }

  static FamilyModel* model_;
  static std::vector<SequenceSpec>* specs_;
  static std::vector<SequenceOutput>* expected_;
};

FamilyModel* Speculation::model_ = nullptr;
std::vector<SequenceSpec>* Speculation::specs_ = nullptr;
std::vector<SequenceOutput>* Speculation::expected_ = nullptr;

TEST_F(Speculation, GivesTheTokensOfPlainDecodingInABatch) {
  for (const int64_t k : {1, 3, 5}) {
    SCOPED_TRACE(fmt::format("{} drafts", k));
    const auto harness = Start(Options(1, 1, k));
    ExpectPlainTokens(harness.get());
    Print(fmt::format("{} drafts", k), harness->totals());
    EXPECT_GT(harness->totals().drafts.accepted_drafts[static_cast<size_t>(k) - 1], 0u);
  }
}

TEST_F(Speculation, GivesTheTokensOfPlainDecodingOnTwoTensorParallelRanks) {
  ExpectPlainTokens(Start(Options(2, 1, 3)).get());
}

// One rank is often idle while the other drafts.
TEST_F(Speculation, GivesTheTokensOfPlainDecodingOnTwoDataParallelRanks) {
  ExpectPlainTokens(Start(Options(1, 2, 5)).get());
}

TEST_F(Speculation, GivesTheTokensOfPlainDecodingAfterPrefixHits) {
  HarnessOptions options = Options(1, 1, 3);
  options.prefix_caching = true;
  options.max_batched_tokens = 40;  // chunks inside prompts
  const auto harness = Start(options);
  ExpectPlainTokens(harness.get());
  ExpectPlainTokens(harness.get());
}

TEST_F(Speculation, GivesTheTokensOfPlainDecodingAfterPreemption) {
  HarnessOptions options = Options(1, 1, 3);
  options.rank.runner.max_model_len = 96;
  options.rank.runner.block_size = 4;
  options.rank.runner.num_blocks = 40;
  const auto harness = Start(options);
  ExpectPlainTokens(harness.get());
  EXPECT_GT(harness->totals().preemptions, 0u);
}

// The other families, with random weights: their drafts rarely stand, and rows of refused
// ones are everywhere.
struct DraftingFamily {
  Family family;
  int64_t num_drafts;
};

void PrintTo(const DraftingFamily& drafting, std::ostream* os) {
  PrintTo(drafting.family, os);
  *os << " with " << drafting.num_drafts << " drafts";
}

class SpeculationOf : public ::testing::TestWithParam<DraftingFamily> {
 protected:
  void SetUp() override {
    auto model = FamilyModel::Load(GetParam().family.name);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    std::mt19937_64 random(kSeed);
    for (const size_t length :
         {1u, 3u, 9u, 17u, 47u, 120u, 126u, 127u, 128u, 131u, 160u}) {
      SequenceSpec spec;
      for (size_t i = 0; i < length; ++i) {
        // Few tokens, so that some drafts are right by chance.
        spec.prompt.push_back(static_cast<int32_t>(random() % 8));
      }
      spec.max_tokens = 20;
      spec.sampling.seed = random();
      spec.sampling.temperature = specs_.size() % 2 == 0 ? 0.0f : 0.7f;
      for (int32_t token = 0; token < 6; ++token) {
        spec.sampling.logit_bias.emplace_back(token, 12.0f);
      }
      specs_.push_back(std::move(spec));
    }
  }

  absl::StatusOr<std::vector<SequenceOutput>> Run(int tp, int dp, int64_t num_drafts,
                                                  HarnessTotals* totals) {
    HarnessOptions options;
    options.shape = {.tp = tp, .dp = dp};
    options.rank.runner.block_size = GetParam().family.block_size;
    options.rank.runner.num_blocks = 4096 / GetParam().family.block_size;
    options.rank.runner.max_model_len = 256;
    if (model_.model->config.tail_tokens() > 0) {
      options.rank.runner.num_tail_blocks = options.rank.runner.num_blocks;
    }
    options.rank.runner.num_speculative_tokens = num_drafts;
    options.record_logits = false;
    auto harness = GroupHarness::Create(*model_.model, options, model_.engram);
    if (!harness.ok()) {
      return harness.status();
    }
    auto outputs = (*harness)->Run(specs_);
    *totals = (*harness)->totals();
    return outputs;
  }

  FamilyModel model_;
  std::vector<SequenceSpec> specs_;
};

TEST_P(SpeculationOf, GivesTheTokensOfPlainDecoding) {
  HarnessTotals totals;
  const auto plain = Run(1, 1, 0, &totals);
  ASSERT_TRUE(plain.ok()) << plain.status();
  for (const auto& [tp, dp] : {std::pair{1, 1}, {2, 2}}) {
    SCOPED_TRACE(fmt::format("tp {} dp {}", tp, dp));
    const auto drafted = Run(tp, dp, GetParam().num_drafts, &totals);
    ASSERT_TRUE(drafted.ok()) << drafted.status();
    for (size_t i = 0; i < specs_.size(); ++i) {
      EXPECT_EQ((*drafted)[i].tokens, (*plain)[i].tokens) << "prompt " << i;
    }
    // Some stood and some did not, or nothing was tried.
    EXPECT_GT(totals.drafts.accepted_drafts[0], 0u);
    EXPECT_LT(totals.drafts.accepted_drafts[0], totals.drafts.num_drafts);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Families, SpeculationOf,
    ::testing::Values(DraftingFamily{{"v3", 16}, 3}, DraftingFamily{{"v32", 16}, 5},
                      DraftingFamily{{"v4", 128}, 1}, DraftingFamily{{"v4", 128}, 3},
                      DraftingFamily{{"v4_0731", 128}, 3},
                      DraftingFamily{{"v41", 16}, 3}),
    [](const auto& tested) {
      return fmt::format("{}_{}", tested.param.family.name, tested.param.num_drafts);
    });

}  // namespace
}  // namespace tessera
