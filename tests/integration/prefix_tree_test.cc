// The prefix cache against the model: over random trees of prompts, with a device pool so
// small that contents are evicted, swapped to host memory and read back, in every other
// tree by way of a disk as well since host memory is small, and with new epochs in
// between, every logit and token has the bits of a run without a cache.
// TESSERA_LONG_TESTS=1 grows 1,000 trees instead of 30.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include <unistd.h>

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

// A family and the first of its seeds, which no other family has: each grows its own
// trees.
struct Forest {
  Family family;
  uint64_t first_seed;
};

void PrintTo(const Forest& forest, std::ostream* os) {
  PrintTo(forest.family, os);
  *os << " from seed " << forest.first_seed;
}

class PrefixTrees : public ::testing::TestWithParam<Forest> {
 protected:
  static const Family& family() { return GetParam().family; }

  void SetUp() override {
    auto model = FamilyModel::Load(family().name);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    plain_ = Create(/*caching=*/false, 64, 0);
    disk_dir_ = ::testing::TempDir() + "prefix_tree_XXXXXX";
    ASSERT_NE(::mkdtemp(disk_dir_.data()), nullptr);
  }

  // Some forests alone are too small to find anything on the disk; all together are not.
  static void TearDownTestSuite() {
    if (num_forests_ == 10) {
      EXPECT_GT(disk_hit_tokens_, 0u);
    }
  }

  void TearDown() override {
    EXPECT_EQ(::rmdir(disk_dir_.c_str()), 0) << "something was left there";
  }

  std::unique_ptr<GroupHarness> Create(bool caching, int64_t num_blocks,
                                       int64_t num_host_blocks, int64_t max_restores = 0,
                                       int64_t num_disk_blocks = 0) {
    HarnessOptions options;
    options.max_restores = max_restores;
    worker::RunnerOptions& runner = options.rank.runner;
    runner.block_size = family().block_size;
    runner.kv_cache_dtype = family().kv_cache_dtype;
    runner.max_model_len = kMaxLength;
    runner.num_blocks = num_blocks;
    runner.num_host_blocks = num_host_blocks;
    if (model_.model->config.tail_tokens() > 0) {
      runner.num_tail_blocks = num_blocks + 4;
      runner.num_host_tail_blocks = num_host_blocks;
      runner.num_disk_tail_blocks = num_disk_blocks;
    }
    if (num_disk_blocks > 0) {
      runner.num_disk_blocks = num_disk_blocks;
      runner.max_disk_copies = 8;
      runner.kv_disk_dir = disk_dir_;
    }
    options.max_batched_tokens = 96;
    options.max_sequences = 8;
    options.prefix_caching = caching;
    auto harness = GroupHarness::Create(*model_.model, options, model_.engram);
    EXPECT_TRUE(harness.ok()) << harness.status();
    return harness.ok() ? *std::move(harness) : nullptr;
  }

  // A prompt that goes on from some point of an earlier one, or a new one.
  std::vector<int32_t> GrowBranch(std::mt19937_64& random) {
    std::vector<int32_t> prompt;
    if (!tree_.empty() && random() % 5 != 0) {
      prompt = tree_[random() % tree_.size()];
      if (random() % 3 == 0) {
        return prompt;
      }
      prompt.resize(prompt.size() - random() % (prompt.size() / 2 + 1));
    }
    const size_t room = static_cast<size_t>(kMaxLength - kNumTokens) - prompt.size();
    const size_t count = random() % (room * 3 / 4 + 1);
    for (size_t i = 0; i < count || prompt.empty(); ++i) {
      prompt.push_back(model_.ids[random() % model_.ids.size()]);
    }
    tree_.push_back(prompt);
    return prompt;
  }

  void ExpectSame(const SequenceOutput& cached, const SequenceOutput& plain,
                  size_t length) {
    EXPECT_EQ(cached.tokens, plain.tokens);
    int64_t compared = 0;
    for (const auto& [position, hash] : cached.logits_of_position) {
      const auto it = plain.logits_of_position.find(position);
      if (it != plain.logits_of_position.end()) {
        ++compared;
        ASSERT_EQ(hash, it->second) << "position " << position;
      }
    }
    // A sequence that was preempted and read back computes none of them twice.
    EXPECT_GE(compared,
              static_cast<int64_t>(length) + kNumTokens - 1 - cached.cached_tokens);
  }

  // Grows one tree; what its branches cost in hits and copies is added up.
  void RunTree(uint64_t seed) {
    SCOPED_TRACE(::testing::Message() << "tree of seed " << seed);
    std::mt19937_64 random(seed);
    const int64_t least = kMaxLength / family().block_size + 1;
    const auto spread = [&](int64_t bound) {
      return static_cast<int64_t>(random() % static_cast<uint64_t>(bound));
    };
    const int64_t num_blocks = least + spread(least);
    const bool disk = seed % 2 == 1;
    const auto harness =
        disk ? Create(true, num_blocks, 2 + spread(least), spread(3), 6 * least)
             : Create(true, num_blocks, least + spread(4 * least), spread(3));
    ASSERT_NE(harness, nullptr);
    tree_.clear();
    for (int wave = 0; wave < 3; ++wave) {
      std::vector<std::vector<int32_t>> prompts;
      for (int i = 0; i < 4; ++i) {
        prompts.push_back(GrowBranch(random));
      }
      auto cached = harness->Run(prompts, kNumTokens);
      ASSERT_TRUE(cached.ok()) << cached.status();
      auto plain = plain_->Run(prompts, kNumTokens);
      ASSERT_TRUE(plain.ok()) << plain.status();
      for (size_t i = 0; i < prompts.size(); ++i) {
        ExpectSame((*cached)[i], (*plain)[i], prompts[i].size());
        hit_tokens_ += (*cached)[i].cached_tokens;
      }
      if (random() % 4 == 0) {
        harness->StartEpoch();
      }
    }
    totals_.Add(harness->stats().tiers);
  }

  std::string disk_dir_;
  FamilyModel model_;
  std::unique_ptr<GroupHarness> plain_;
  std::vector<std::vector<int32_t>> tree_;
  int64_t hit_tokens_ = 0;
  coordinator::TierTotals totals_;
  static inline int num_forests_ = 0;
  static inline uint64_t disk_hit_tokens_ = 0;  // in all forests
};

TEST_P(PrefixTrees, ComputeTheSameBitsWithEvictionsSwapsAndNewEpochs) {
  const bool all = std::getenv("TESSERA_LONG_TESTS") != nullptr;
  // Of each of ten forests; more where none of these happened to read anything back.
  const uint64_t num_trees = all ? 100 : 3;
  uint64_t grown = 0;
  while (!HasFatalFailure() &&
         (grown < num_trees || (totals_.restored_blocks == 0 && grown < 4 * num_trees))) {
    RunTree(GetParam().first_seed + grown++);
  }
  std::cout << grown << " trees: " << hit_tokens_ << " tokens hit, "
            << totals_.host_hit_tokens << " of them and of swaps on the host; "
            << totals_.offloaded_blocks << " blocks offloaded, "
            << totals_.restored_blocks << " restored; " << totals_.resumed_tokens
            << " tokens resumed, " << totals_.recomputed_tokens << " recomputed; "
            << totals_.spilled_blocks << " blocks to the disk, " << totals_.fetched_blocks
            << " back, " << totals_.disk_hit_tokens << " tokens hit there, "
            << totals_.disk_waits << " waits\n";
  EXPECT_GT(hit_tokens_, 0);
  num_forests_ += 1;
  disk_hit_tokens_ += totals_.disk_hit_tokens;
  EXPECT_EQ(totals_.failed_disk_copies, 0u);
  EXPECT_EQ(totals_.given_up_disk_waits, 0u);
  EXPECT_GT(totals_.restored_blocks, 0u);
}

TEST_P(PrefixTrees, PreemptedSequencesGoOnWithTheSameTokens) {
  const auto harness = Create(true, kMaxLength / family().block_size + 2, 64);
  ASSERT_NE(harness, nullptr);
  constexpr int64_t kLong = 30;
  std::vector<std::vector<int32_t>> prompts;
  for (int i = 0; i < 5; ++i) {
    prompts.emplace_back(model_.ids.begin() + 40 * i, model_.ids.begin() + 40 * i + 110);
  }
  const auto swapped = harness->Run(prompts, kLong);
  ASSERT_TRUE(swapped.ok()) << swapped.status();
  const auto plain = plain_->Run(prompts, kLong);
  ASSERT_TRUE(plain.ok()) << plain.status();
  for (size_t i = 0; i < prompts.size(); ++i) {
    EXPECT_EQ((*swapped)[i].tokens, (*plain)[i].tokens);
  }
  std::cout << harness->stats().preemptions << " preemptions, "
            << harness->stats().tiers.resumed_tokens << " tokens resumed, "
            << harness->stats().tiers.restored_blocks << " blocks restored\n";
  if (family().block_size == 16) {
    // Sequences of larger blocks all fit in the two that are spare.
    EXPECT_GT(harness->stats().preemptions, 0u);
    EXPECT_GT(harness->stats().tiers.resumed_tokens, 0u);
  }
}

TEST_P(PrefixTrees, TwoTenantsWithTheSamePromptNeverHitEachOther) {
  const auto harness = Create(true, 64, 32);
  ASSERT_NE(harness, nullptr);
  std::vector<coordinator::SequenceSpec> specs(1);
  specs[0].prompt = model_.ids;
  specs[0].max_tokens = kNumTokens;
  specs[0].sampling.temperature = 0;
  int64_t cached[4] = {};
  const char* tenants[4] = {"a", "b", "a", "b"};
  for (int i = 0; i < 4; ++i) {
    specs[0].tenant = tenants[i];
    const auto outputs = harness->Run(specs);
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    cached[i] = outputs->front().cached_tokens;
  }
  EXPECT_EQ(cached[0], 0);
  EXPECT_EQ(cached[1], 0) << "another tenant has the prompt";
  EXPECT_GT(cached[2], 0);
  EXPECT_EQ(cached[3], cached[2]);
}

INSTANTIATE_TEST_SUITE_P(
    Families, PrefixTrees,
    ::testing::Values(Forest{{"v3", 16}, 0}, Forest{{"v3_bf16", 16}, 1000},
                      Forest{{"v32", 16}, 2000}, Forest{{"v4", 128}, 3000},
                      Forest{{"v4_0731", 128}, 4000}, Forest{{"v41", 128}, 5000},
                      Forest{{"demo", 16}, 6000},
                      Forest{{"v32", 16, worker::KvCacheDtype::kFp8}, 7000},
                      Forest{{"v4", 128, worker::KvCacheDtype::kFp8}, 8000},
                      Forest{{"v41", 16, worker::KvCacheDtype::kFp8}, 9000}));

}  // namespace
}  // namespace tessera
