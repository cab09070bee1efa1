// Prefill and decode on separate ranks against the model: whatever is handed over between
// them, every logit and every token has the bits of a group without roles, for every
// family's caches and row formats, with tensor parallelism, sampling, speculation and
// preemption.
#include <cstdint>
#include <memory>
#include <string>
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

constexpr int64_t kNumTokens = 10;
constexpr int64_t kMaxLength = 340;

class HandOverBits : public ::testing::TestWithParam<Family> {
 protected:
  void SetUp() override {
    auto model = FamilyModel::Load(GetParam().name);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
  }

  HarnessOptions Plain() const {
    HarnessOptions options;
    worker::RunnerOptions& runner = options.rank.runner;
    runner.block_size = GetParam().block_size;
    runner.kv_cache_dtype = GetParam().kv_cache_dtype;
    runner.max_model_len = kMaxLength;
    runner.num_blocks = 128;
    if (model_.model->config.tail_tokens() > 0) {
      runner.num_tail_blocks = 132;
    }
    options.max_batched_tokens = 96;
    options.max_sequences = 8;
    options.prefix_caching = false;
    return options;
  }

  // The first `num_prefill` of `dp` ranks prefill.
  HarnessOptions Roles(int tp, int dp, int64_t num_prefill) const {
    HarnessOptions options = Plain();
    options.shape.tp = tp;
    options.shape.dp = dp;
    options.prefix_caching = true;
    options.num_prefill_ranks = num_prefill;
    options.prefill_min_tokens = GetParam().block_size + 10;
    worker::RunnerOptions& runner = options.rank.runner;
    runner.num_host_blocks = 96;
    runner.num_host_tail_blocks = runner.num_tail_blocks > 0 ? 96 : 0;
    runner.max_transfers = 5;
    return options;
  }

  std::unique_ptr<GroupHarness> Create(const HarnessOptions& options) const {
    auto harness = GroupHarness::Create(*model_.model, options, model_.engram);
    EXPECT_TRUE(harness.ok()) << harness.status();
    return harness.ok() ? *std::move(harness) : nullptr;
  }

  // Long ones, one that goes on from another, and a short one.
  std::vector<std::vector<int32_t>> Prompts() const {
    const std::vector<int32_t>& ids = model_.ids;
    const auto part = [&](size_t begin, size_t end) {
      return std::vector<int32_t>(ids.begin() + static_cast<std::ptrdiff_t>(begin),
                                  ids.begin() + static_cast<std::ptrdiff_t>(end));
    };
    std::vector<std::vector<int32_t>> prompts = {part(0, 290), part(7, 280), part(3, 12),
                                                 part(40, 297)};
    prompts.push_back(prompts[1]);
    prompts.back().resize(150, ids[5]);
    prompts.back().insert(prompts.back().end(), ids.begin(), ids.begin() + 100);
    return prompts;
  }

  std::vector<coordinator::SequenceSpec> Sampled() const {
    std::vector<coordinator::SequenceSpec> specs;
    for (const std::vector<int32_t>& prompt : Prompts()) {
      coordinator::SequenceSpec spec;
      spec.prompt = prompt;
      spec.max_tokens = 24;
      spec.sampling.temperature = specs.size() % 2 == 0 ? 0.9f : 0.0f;
      spec.sampling.seed = 77 + specs.size();
      spec.sampling.frequency_penalty = 0.3f;
      spec.sampling.repetition_penalty = 1.1f;
      specs.push_back(std::move(spec));
    }
    return specs;
  }

  static void ExpectSameTokens(const std::vector<SequenceOutput>& roles,
                               const std::vector<SequenceOutput>& plain) {
    for (size_t i = 0; i < plain.size(); ++i) {
      EXPECT_EQ(roles[i].tokens, plain[i].tokens) << "sequence " << i;
    }
  }

  FamilyModel model_;
};

TEST_P(HandOverBits, EveryLogitIsThatOfAGroupWithoutRoles) {
  const auto plain_group = Create(Plain());
  ASSERT_NE(plain_group, nullptr);
  const auto plain = plain_group->Run(Prompts(), kNumTokens);
  ASSERT_TRUE(plain.ok()) << plain.status();
  struct Shape {
    int tp;
    int dp;
    int64_t num_prefill;
  };
  for (const Shape& shape : {Shape{1, 3, 1}, Shape{1, 3, 2}, Shape{2, 2, 1}}) {
    SCOPED_TRACE(::testing::Message() << "tp " << shape.tp << " dp " << shape.dp
                                      << " prefill ranks " << shape.num_prefill);
    const auto group = Create(Roles(shape.tp, shape.dp, shape.num_prefill));
    ASSERT_NE(group, nullptr);
    const auto roles = group->Run(Prompts(), kNumTokens);
    ASSERT_TRUE(roles.ok()) << roles.status();
    ExpectSameTokens(*roles, *plain);
    for (size_t i = 0; i < plain->size(); ++i) {
      int64_t compared = 0;
      for (const auto& [position, hash] : (*roles)[i].logits_of_position) {
        const auto it = (*plain)[i].logits_of_position.find(position);
        ASSERT_NE(it, (*plain)[i].logits_of_position.end());
        ASSERT_EQ(hash, it->second) << "sequence " << i << " position " << position;
        ++compared;
      }
      EXPECT_GE(compared,
                std::ssize(Prompts()[i]) + kNumTokens - 1 - (*roles)[i].cached_tokens);
    }
    const coordinator::HandOverTotals totals = group->stats().hand_overs;
    EXPECT_GE(totals.sequences, 3u);
    EXPECT_EQ(totals.given_up, 0u);
    EXPECT_GT(totals.blocks, totals.sequences);
  }
}

TEST_P(HandOverBits, SampledTokensAreTheSameWithAndWithoutSpeculation) {
  HarnessOptions options = Plain();
  options.record_logits = false;
  const auto plain_group = Create(options);
  ASSERT_NE(plain_group, nullptr);
  const auto plain = plain_group->Run(Sampled());
  ASSERT_TRUE(plain.ok()) << plain.status();
  const int64_t most_drafts = model_.model->config.num_draft_layers > 0 ? 2 : 0;
  for (int64_t num_drafts = 0; num_drafts <= most_drafts; num_drafts += 2) {
    options = Roles(1, 2, 1);
    options.record_logits = false;
    options.rank.runner.num_speculative_tokens = num_drafts;
    const auto group = Create(options);
    ASSERT_NE(group, nullptr);
    const auto roles = group->Run(Sampled());
    ASSERT_TRUE(roles.ok()) << roles.status();
    ExpectSameTokens(*roles, *plain);
    EXPECT_GE(group->stats().hand_overs.sequences, 3u);
  }
}

TEST_P(HandOverBits, RanksTooSmallForAllPreemptAndGoOnWithTheSameTokens) {
  HarnessOptions options = Plain();
  const auto plain_group = Create(options);
  ASSERT_NE(plain_group, nullptr);
  const auto plain = plain_group->Run(Prompts(), kNumTokens);
  ASSERT_TRUE(plain.ok()) << plain.status();
  options = Roles(1, 2, 1);
  const int64_t least = kMaxLength / GetParam().block_size + 1;
  options.rank.runner.num_blocks = least + 1;
  options.rank.runner.num_host_blocks = least;
  if (options.rank.runner.num_tail_blocks > 0) {
    options.rank.runner.num_host_tail_blocks = least;
  }
  options.max_restores = 2;
  const auto group = Create(options);
  ASSERT_NE(group, nullptr);
  for (int wave = 0; wave < 2; ++wave) {
    const auto roles = group->Run(Prompts(), kNumTokens);
    ASSERT_TRUE(roles.ok()) << roles.status();
    ExpectSameTokens(*roles, *plain);
    group->StartEpoch();
  }
  EXPECT_GT(group->stats().hand_overs.blocks, 0u);
}

INSTANTIATE_TEST_SUITE_P(
    Families, HandOverBits,
    ::testing::Values(Family{"v3", 16}, Family{"v32", 16}, Family{"v4", 128},
                      Family{"v4_0731", 128}, Family{"v41", 128}, Family{"demo", 16},
                      Family{"v32", 16, worker::KvCacheDtype::kFp8},
                      Family{"v4", 128, worker::KvCacheDtype::kFp8},
                      Family{"v41", 16, worker::KvCacheDtype::kFp8}));

}  // namespace
}  // namespace tessera
