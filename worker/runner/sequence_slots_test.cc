#include "worker/runner/sequence_slots.h"

#include <cstdint>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

#include "proto/step_plan.h"

namespace tessera::worker {
namespace {

constexpr SlotLimits kLimits = {.num_slots = 2,
                                .max_model_len = 10,
                                .num_blocks = 4,
                                .block_size = 4,
                                .num_token_ids = 100,
                                .vocab_size = 120,
                                .max_drafts = 2};

proto::StepPlan Admit(uint32_t slot, std::vector<uint32_t> blocks,
                      std::vector<int32_t> history = {}) {
  proto::StepPlan plan;
  plan.admissions.push_back(
      {.slot = slot, .history = std::move(history), .blocks = std::move(blocks)});
  return plan;
}

TEST(SequenceSlots, KeepsTokensAcrossChunksAndSampledOnes) {
  SequenceSlots slots(kLimits);
  ASSERT_TRUE(slots.Apply(Admit(1, {2, 0}, {5, 6})).ok());
  ASSERT_TRUE(slots.Advance({.slot = 1, .tokens = {7}}).ok());
  slots.slot(1).sampled = 42;
  ASSERT_TRUE(slots.Advance({.slot = 1, .from_sample = true}).ok());
  EXPECT_EQ(slots.slot(1).tokens, (std::vector<int32_t>{5, 6, 7, 42}));
  EXPECT_EQ(slots.Advance({.slot = 1, .from_sample = true}).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(SequenceSlots, RefusesFactsThatCannotBe) {
  SequenceSlots slots(kLimits);
  EXPECT_EQ(slots.Apply(Admit(2, {})).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(slots.Apply(Admit(0, {4})).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(slots.Apply(Admit(0, {0, 1, 2, 3})).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(slots.Apply(Admit(0, {0}, {100})).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(slots.Apply(Admit(0, {0}, {-1})).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(slots.Advance({.slot = 0, .tokens = {1}}).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

// A plan may come from anybody who has the group's token.
TEST(SequenceSlots, RefusesSamplingThatCannotBe) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const proto::SamplingParams bad[] = {{.temperature = -1},
                                       {.temperature = nan},
                                       {.top_p = 0},
                                       {.top_p = 2},
                                       {.min_p = -1},
                                       {.repetition_penalty = 0},
                                       {.stop_token_ids = {120}},
                                       {.logit_bias = {{-1, 1.0f}}},
                                       {.bad_words = {{}}},
                                       {.bad_words = {{3, 2'000'000'000}}},
                                       {.bad_words = {{-1}}},
                                       {.allowed_token_ids = {120}}};
  for (const proto::SamplingParams& params : bad) {
    SequenceSlots slots(kLimits);
    proto::StepPlan plan = Admit(0, {0});
    plan.admissions[0].sampling = params;
    EXPECT_EQ(slots.Apply(plan).code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(SequenceSlots, MasksAreOfExactlyTheMaskedWork) {
  SequenceSlots slots(kLimits);
  ASSERT_TRUE(slots.Apply(Admit(1, {2, 0}, {5, 6})).ok());
  ASSERT_TRUE(slots.Apply(Admit(0, {1}, {5})).ok());
  proto::StepPlan plan;
  plan.work = {{.slot = 0, .sample = true, .tokens = {7}},
               {.slot = 1, .sample = true, .tokens = {7}, .masked = true}};
  const auto take = [&](std::vector<proto::TokenMask> masks) {
    return slots.TakeMasks(plan, {.masks = std::move(masks)}).code();
  };
  using absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(take({}), kInvalidArgument);
  EXPECT_EQ(take({{0, {}}}), kInvalidArgument);
  EXPECT_EQ(take({{1, {1, 2, 3}}}), kInvalidArgument);
  EXPECT_EQ(take({{1, {}}, {0, {}}}), kInvalidArgument);
  EXPECT_EQ(take({{1, {}}}), absl::StatusCode::kOk);
  const proto::LateInput late = {.masks = {{1, {1, 2, 3, 4}}}};
  ASSERT_TRUE(slots.TakeMasks(plan, late).ok());
  EXPECT_EQ(slots.slot(1).mask.data(), late.masks[0].words.data());
  EXPECT_TRUE(slots.slot(0).mask.empty());
  slots.DropMasks(plan);
  EXPECT_TRUE(slots.slot(1).mask.empty());
}

TEST(SequenceSlots, MaskedWorkSamplesWithoutDrafts) {
  SequenceSlots slots(kLimits);
  ASSERT_TRUE(slots.Apply(Admit(1, {2, 0}, {5, 6})).ok());
  EXPECT_EQ(slots.CheckWork({.slot = 1, .tokens = {7}, .masked = true}).code(),
            absl::StatusCode::kInvalidArgument);
  slots.slot(1).sampled = 7;
  EXPECT_EQ(slots
                .CheckWork({.slot = 1,
                            .from_sample = true,
                            .sample = true,
                            .num_drafts = 1,
                            .masked = true})
                .code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(SequenceSlots, TokensNeverOutgrowTheirBlocks) {
  SequenceSlots slots(kLimits);
  ASSERT_TRUE(slots.Apply(Admit(0, {0})).ok());
  EXPECT_EQ(slots.Advance({.slot = 0, .tokens = {1, 2, 3, 4, 5}}).status().code(),
            absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(slots.Advance({.slot = 0, .tokens = {1, 2, 3, 4}}).ok());
  proto::StepPlan plan;
  plan.appends.push_back({.slot = 0, .blocks = {1}});
  ASSERT_TRUE(slots.Apply(plan).ok());
  EXPECT_TRUE(slots.Advance({.slot = 0, .tokens = {5}}).ok());
}

SlotLimits TailLimits() {
  SlotLimits limits = kLimits;
  limits.num_tail_blocks = 3;
  limits.tail_tokens = 3;
  return limits;
}

TEST(SequenceSlots, TokensNeverOutgrowTheirTailBlocks) {
  SequenceSlots slots(TailLimits());
  proto::StepPlan plan = Admit(0, {0, 1, 2});
  plan.admissions[0].tail_blocks = {2};
  ASSERT_TRUE(slots.Apply(plan).ok());
  ASSERT_TRUE(slots.Advance({.slot = 0, .tokens = {1, 2, 3, 4}}).ok());
  EXPECT_EQ(slots.Advance({.slot = 0, .tokens = {5}}).status().code(),
            absl::StatusCode::kInvalidArgument);
  plan = {};
  plan.appends.push_back({.slot = 0, .tail_blocks = {0}});
  ASSERT_TRUE(slots.Apply(plan).ok());
  EXPECT_TRUE(slots.Advance({.slot = 0, .tokens = {5}}).ok());
  EXPECT_EQ(slots.slot(0).tail, (std::vector<int32_t>{2, 0}));
}

TEST(SequenceSlots, ATailTableBeginsWhereTheNextTokenSees) {
  SequenceSlots slots(TailLimits());
  // The token at 7 sees 4 to 7, the one at 6 sees 3 as well.
  proto::StepPlan plan = Admit(0, {0, 1}, {1, 2, 3, 4, 5, 6});
  plan.admissions[0].tail_begin = 1;
  plan.admissions[0].tail_blocks = {2};
  EXPECT_EQ(slots.Apply(plan).code(), absl::StatusCode::kInvalidArgument);
  plan.admissions[0].history.push_back(7);
  ASSERT_TRUE(slots.Apply(plan).ok());
  EXPECT_EQ(slots.slot(0).tail, (std::vector<int32_t>{-1, 2}));
  EXPECT_TRUE(slots.Advance({.slot = 0, .tokens = {8}}).ok());
}

TEST(SequenceSlots, RefusesTailBlocksThatCannotBe) {
  proto::StepPlan plan = Admit(0, {0, 1, 2});
  plan.admissions[0].tail_blocks = {3};
  EXPECT_EQ(SequenceSlots(TailLimits()).Apply(plan).code(),
            absl::StatusCode::kInvalidArgument);
  plan.admissions[0].tail_blocks = {0, 1, 2, 0};
  EXPECT_EQ(SequenceSlots(TailLimits()).Apply(plan).code(),
            absl::StatusCode::kInvalidArgument);
  plan.admissions[0].tail_blocks = {0};
  EXPECT_TRUE(SequenceSlots(TailLimits()).Apply(plan).ok());
  EXPECT_EQ(SequenceSlots(kLimits).Apply(plan).code(), absl::StatusCode::kInvalidArgument)
      << "the model keeps no tail blocks";
}

// A slot with tokens 5 6 that sampled 7 and drafted 8 9.
SequenceSlots Drafted() {
  SequenceSlots slots(kLimits);
  EXPECT_TRUE(slots.Apply(Admit(0, {0, 1})).ok());
  EXPECT_TRUE(slots.Advance({.slot = 0, .sample = true, .tokens = {5, 6}}).ok());
  slots.slot(0).sampled = 7;
  slots.slot(0).drafts = {8, 9};
  return slots;
}

TEST(SequenceSlots, DraftsFollowTheSampledTokenOnceAndAsManyAsTheWorkAllows) {
  SequenceSlots slots = Drafted();
  const auto run =
      slots.Advance({.slot = 0, .from_sample = true, .sample = true, .num_drafts = 1});
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->begin, 2);
  EXPECT_EQ(run->count, 2);
  EXPECT_EQ(run->num_head_rows(), 2);
  EXPECT_EQ(slots.slot(0).tokens, (std::vector<int32_t>{5, 6, 7, 8}));
  EXPECT_TRUE(slots.slot(0).drafts.empty());
}

TEST(SequenceSlots, AWorkMayAllowMoreDraftsThanThereAre) {
  SequenceSlots slots = Drafted();
  slots.slot(0).drafts = {8};
  const auto run =
      slots.Advance({.slot = 0, .sample = true, .tokens = {7}, .num_drafts = 2});
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(run->num_drafts, 1);
  EXPECT_EQ(slots.slot(0).tokens, (std::vector<int32_t>{5, 6, 7, 8}));
}

TEST(SequenceSlots, RefusesDraftsThatCannotBe) {
  const auto code = [](const proto::SlotWork& work) {
    return Drafted().CheckWork(work).code();
  };
  proto::SlotWork work{.slot = 0, .from_sample = true, .sample = true, .num_drafts = 2};
  EXPECT_EQ(code(work), absl::StatusCode::kOk);
  work.num_drafts = 3;  // more than max_drafts
  EXPECT_EQ(code(work), absl::StatusCode::kInvalidArgument);
  work.num_drafts = 2;
  work.sample = false;
  EXPECT_EQ(code(work), absl::StatusCode::kInvalidArgument);
  work = {.slot = 0, .sample = true, .tokens = {6}, .num_drafts = 1};  // 7 was sampled
  EXPECT_EQ(code(work), absl::StatusCode::kInvalidArgument);
  work = {.slot = 0, .tokens = {7}, .next_token = 100};
  EXPECT_EQ(code(work), absl::StatusCode::kInvalidArgument);
}

TEST(SequenceSlots, DraftsNeedBlocksForAllThatTheWorkAllows) {
  SequenceSlots slots(kLimits);
  ASSERT_TRUE(slots.Apply(Admit(0, {0})).ok());
  ASSERT_TRUE(slots.Advance({.slot = 0, .sample = true, .tokens = {5, 6}}).ok());
  slots.slot(0).sampled = 7;
  proto::SlotWork work{.slot = 0, .from_sample = true, .sample = true, .num_drafts = 2};
  EXPECT_EQ(slots.CheckWork(work).code(), absl::StatusCode::kInvalidArgument);
  work.num_drafts = 1;
  EXPECT_TRUE(slots.CheckWork(work).ok());
}

TEST(SequenceSlots, NothingIsSampledInsideAPrompt) {
  SequenceSlots slots(kLimits);
  proto::StepPlan plan = Admit(0, {0}, {1, 2});
  plan.admissions.front().prompt_length = 4;
  ASSERT_TRUE(slots.Apply(plan).ok());
  EXPECT_TRUE(slots.CheckWork({.slot = 0, .tokens = {3}}).ok());
  EXPECT_EQ(slots.CheckWork({.slot = 0, .sample = true, .tokens = {3}}).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(slots.CheckWork({.slot = 0, .sample = true, .tokens = {3, 4}}).ok());
}

TEST(SequenceSlots, ASlotIsReusedOnlyAfterItsRelease) {
  SequenceSlots slots(kLimits);
  ASSERT_TRUE(slots.Apply(Admit(0, {0})).ok());
  EXPECT_EQ(slots.Apply(Admit(0, {1})).code(), absl::StatusCode::kFailedPrecondition);
  proto::StepPlan plan = Admit(0, {1});
  plan.releases.push_back(0);
  EXPECT_TRUE(slots.Apply(plan).ok());
  slots.Clear();
  EXPECT_TRUE(slots.Apply(Admit(0, {0})).ok());
}

}  // namespace
}  // namespace tessera::worker
