#include "worker/runner/verification.h"

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

#include "common/status.h"
#include "proto/step_plan.h"
#include "worker/runner/sampler.h"
#include "worker/runner/sequence_slots.h"

namespace tessera::worker {
namespace {

// A model whose next token is one more than the last.
absl::StatusOr<proto::SampledToken> CountUp(int64_t, const SequenceSlot&,
                                            const SamplingHistory& history) {
  proto::SampledToken token;
  token.token = history.tokens.back() + 1;
  token.position = static_cast<uint32_t>(history.tokens.size());
  return token;
}

std::vector<int32_t> TokensOf(const std::vector<proto::SampledToken>& sampled) {
  std::vector<int32_t> tokens;
  for (const proto::SampledToken& token : sampled) {
    tokens.push_back(token.token);
  }
  return tokens;
}

class Verification : public ::testing::Test {
 protected:
  Verification()
      : slots_({.num_slots = 3,
                .max_model_len = 64,
                .num_blocks = 16,
                .block_size = 4,
                .num_token_ids = 100,
                .vocab_size = 100,
                .max_drafts = 4}) {}

  // A sequence with tokens 1 2 that sampled 3 and drafted `drafts`.
  StepRun Verify(uint32_t slot, std::vector<int32_t> drafts) {
    proto::StepPlan plan;
    plan.admissions.push_back({.slot = slot, .blocks = {0, 1, 2}});
    EXPECT_TRUE(slots_.Apply(plan).ok());
    EXPECT_TRUE(slots_.Advance({.slot = slot, .sample = true, .tokens = {1, 2}}).ok());
    slots_.slot(slot).sampled = 3;
    slots_.slot(slot).drafts = std::move(drafts);
    const auto run = slots_.Advance(
        {.slot = slot, .from_sample = true, .sample = true, .num_drafts = 4});
    EXPECT_TRUE(run.ok()) << run.status();
    return run.value_or(StepRun());
  }

  SequenceSlots slots_;
  std::vector<proto::SampledToken> sampled_;
  proto::StepCounters counters_;
};

TEST_F(Verification, AllDraftsStandAndOneTokenMoreIsWon) {
  const StepRun run = Verify(0, {4, 5, 6});
  ASSERT_TRUE(SampleRuns({{run}}, slots_, CountUp, sampled_, counters_).ok());
  EXPECT_EQ(TokensOf(sampled_), (std::vector<int32_t>{4, 5, 6, 7}));
  EXPECT_EQ(slots_.slot(0).tokens, (std::vector<int32_t>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(slots_.slot(0).sampled, 7);
}

TEST_F(Verification, TheFirstWrongDraftEndsItAlsoIfALaterOneIsRight) {
  const StepRun run = Verify(0, {4, 9, 6});
  ASSERT_TRUE(SampleRuns({{run}}, slots_, CountUp, sampled_, counters_).ok());
  EXPECT_EQ(TokensOf(sampled_), (std::vector<int32_t>{4, 5}));
  EXPECT_EQ(slots_.slot(0).tokens, (std::vector<int32_t>{1, 2, 3, 4}));
  EXPECT_EQ(slots_.slot(0).sampled, 5);
}

TEST_F(Verification, WithoutDraftsOneTokenIsSampled) {
  const StepRun run = Verify(0, {});
  ASSERT_TRUE(SampleRuns({{run}}, slots_, CountUp, sampled_, counters_).ok());
  EXPECT_EQ(TokensOf(sampled_), (std::vector<int32_t>{4}));
  EXPECT_EQ(slots_.slot(0).tokens, (std::vector<int32_t>{1, 2, 3}));
}

TEST_F(Verification, EachDraftIsJudgedByItsOwnRow) {
  const std::vector<StepRun> runs = {Verify(0, {9, 5}), Verify(1, {4, 9, 6, 7}),
                                     Verify(2, {4})};
  std::vector<int64_t> rows;
  const auto sample = [&](int64_t row, const SequenceSlot& slot,
                          const SamplingHistory& history) {
    rows.push_back(row);
    return CountUp(row, slot, history);
  };
  ASSERT_TRUE(SampleRuns(runs, slots_, sample, sampled_, counters_).ok());
  // Rows 0-2, 3-7 and 8-9; rows after a refused draft are not looked at.
  EXPECT_EQ(rows, (std::vector<int64_t>{0, 3, 4, 8, 9}));
  ASSERT_EQ(sampled_.size(), 5u);
  EXPECT_EQ(sampled_[0].slot, 0u);
  EXPECT_EQ(sampled_[2].slot, 1u);
  EXPECT_EQ(sampled_[2].position, 4u);
  EXPECT_EQ(sampled_[4].slot, 2u);
}

TEST_F(Verification, CountsWhatBecameOfTheDrafts) {
  const std::vector<StepRun> runs = {Verify(0, {4, 5}), Verify(1, {4, 9, 6}),
                                     Verify(2, {})};
  ASSERT_TRUE(SampleRuns(runs, slots_, CountUp, sampled_, counters_).ok());
  EXPECT_EQ(counters_.num_drafts, 2u);
  EXPECT_EQ(counters_.num_draft_tokens, 5u);
  EXPECT_EQ(counters_.accepted_drafts[0], 2u);
  EXPECT_EQ(counters_.accepted_drafts[1], 1u);
  EXPECT_EQ(counters_.accepted_drafts[2], 0u);
}

TEST_F(Verification, AnErrorOfTheSamplerEndsIt) {
  const StepRun run = Verify(0, {4, 5});
  const auto fails = [](int64_t, const SequenceSlot&,
                        const SamplingHistory&) -> absl::StatusOr<proto::SampledToken> {
    return DataLossF("a logit that is not finite");
  };
  EXPECT_EQ(SampleRuns({{run}}, slots_, fails, sampled_, counters_).code(),
            absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace tessera::worker
