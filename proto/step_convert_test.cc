#include "proto/step_convert.h"

#include <limits>

#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera::proto {
namespace {

using testing::IsOkAndHolds;
using testing::StatusIs;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

StepPlan FullPlan() {
  StepPlan plan;
  plan.epoch = 3;
  plan.step = uint64_t{1} << 40;
  plan.placement_version = 9;
  plan.disk_copies = {{8, 90, uint64_t{1} << 50, false, true}, {1, 2, 3, true, false}};
  plan.offloads = {{5, 1000, false}, {2, 3, true}};
  plan.restores = {{0, 7, true}};
  plan.transfers = true;
  plan.sends = {{5, 1, false, 77}, {2, 3, true, uint64_t{1} << 40}};
  plan.receives = {{9, 2, true, 78}};
  plan.releases = {4, 0};
  SlotAdmission admission;
  admission.slot = 7;
  admission.history = {1, 129279, 5};
  admission.prompt_length = 2;
  admission.blocks = {8, 6};
  admission.tail_begin = 1;
  admission.tail_blocks = {3, 0};
  admission.sampling = {0.7f,          0.9f,  40, 0.05f, 1.1f, -0.5f,  0.25f,
                        ~uint64_t{0},  3u,    5,  4,     2,    {1, 2}, {{17, -100.0f}},
                        {{5}, {6, 7}}, {3, 9}};
  plan.admissions = {admission};
  plan.appends = {{7, {11}, {2}}, {1, {12, 13}, {}}, {4, {}, {5, 6}}};
  plan.work = {{7, false, true, {9, 10}},
               {1, true, true, {}, 3},
               {2, false, false, {4}, 0, 5},
               {3, true, true, {}, 0, -1, true}};
  plan.leaves_expert_counts = true;
  plan.reports_expert_counts = true;
  return plan;
}

TEST(StepConvert, APlanComesBackAsItWas) {
  EXPECT_THAT(FromWire(ToWire(FullPlan())), IsOkAndHolds(FullPlan()));
  EXPECT_THAT(FromWire(ToWire(StepPlan())), IsOkAndHolds(StepPlan()));
}

TEST(StepConvert, AResultComesBackAsItWas) {
  StepResult result;
  result.epoch = 3;
  result.step = 12;
  result.sampled = {{7, 42, 100, -1.5f, {{42, -1.5f}, {3, -2.0f}}}, {1, 0, 0, 0, {}}};
  result.prompt = {{7, 5, 1, -0.5f, {{6, -0.25f}}}, {7, 9, 2, -3.0f, {}}};
  result.counters = {1, 2,     3, 4, 5,           6,  15, 16, 17,
                     7, 1.25f, 8, 9, {10, 0, 11}, 12, 13, 14, 18};
  result.expert_counts = {0, 3, ~uint32_t{0}, 0};
  result.disk_done = 21;
  result.disk_failed = {18, uint64_t{1} << 40};
  EXPECT_THAT(FromWire(ToWire(result)), IsOkAndHolds(result));
  StepLimits limits;
  limits.max_disk_copies = 1;
  EXPECT_THAT(FromWire(ToWire(result), limits), StatusIs(kInvalid));
}

TEST(StepConvert, EveryCountHasALimit) {
  StepLimits limits;
  const auto message = ToWire(FullPlan());
  ASSERT_TRUE(FromWire(message, limits).ok());
  for (int64_t StepLimits::*limit :
       {&StepLimits::max_history, &StepLimits::max_blocks, &StepLimits::max_tokens,
        &StepLimits::max_disk_copies, &StepLimits::max_copies,
        &StepLimits::max_stop_tokens, &StepLimits::max_logit_bias,
        &StepLimits::max_top_logprobs, &StepLimits::max_bad_words,
        &StepLimits::max_bad_word_tokens, &StepLimits::max_allowed_tokens}) {
    StepLimits narrow;
    narrow.*limit = 0;
    EXPECT_THAT(FromWire(message, narrow), StatusIs(kInvalid));
  }
  limits.max_slots = 7;  // slot 7 is the first out of range
  EXPECT_THAT(FromWire(message, limits), StatusIs(kInvalid));
}

TEST(StepConvert, BlocksTravelOnlyInStepsWithTransfers) {
  StepPlan plan;
  plan.transfers = true;
  EXPECT_THAT(FromWire(ToWire(plan)), IsOkAndHolds(plan));
  plan.sends = {{0, 1, false, 1}};
  EXPECT_THAT(FromWire(ToWire(plan)), IsOkAndHolds(plan));
  StepLimits limits;
  limits.max_copies = 0;
  EXPECT_THAT(FromWire(ToWire(plan), limits), StatusIs(kInvalid));
  plan.transfers = false;
  EXPECT_THAT(FromWire(ToWire(plan)), StatusIs(kInvalid));
  std::swap(plan.sends, plan.receives);
  EXPECT_THAT(FromWire(ToWire(plan)), StatusIs(kInvalid));
}

TEST(StepConvert, TheRowsOfADecodeStepFitItsWork) {
  StepPlan plan;
  plan.work = {{0, true, true}, {1, false, true, {5}}};
  plan.decode_rows = 3;
  EXPECT_THAT(FromWire(ToWire(plan)), IsOkAndHolds(plan));
  EXPECT_THAT(FromWire(ToWire(plan), {.max_slots = 2}), StatusIs(kInvalid));
  plan.decode_rows = 1;
  EXPECT_THAT(FromWire(ToWire(plan)), StatusIs(kInvalid));
  plan.decode_rows = 2;
  plan.work[1].tokens = {5, 6};
  EXPECT_THAT(FromWire(ToWire(plan)), StatusIs(kInvalid));
}

TEST(StepConvert, TailTablesAreLimitedLikeBlockTables) {
  StepPlan plan;
  plan.appends = {{0, {}, {1, 2, 3}}};
  StepLimits limits;
  limits.max_blocks = 2;
  EXPECT_THAT(FromWire(ToWire(plan), limits), StatusIs(kInvalid));
  plan = StepPlan();
  plan.admissions.resize(1);
  plan.admissions[0].tail_begin = 2;
  EXPECT_THAT(FromWire(ToWire(plan)), StatusIs(kInvalid)) << "begins with nothing";
  plan.admissions[0].tail_blocks = {7};
  EXPECT_THAT(FromWire(ToWire(plan)), IsOkAndHolds(plan));
  EXPECT_THAT(FromWire(ToWire(plan), limits), StatusIs(kInvalid));
  plan.admissions[0].tail_begin = ~uint32_t{0};
  EXPECT_THAT(FromWire(ToWire(plan)), StatusIs(kInvalid));
}

TEST(StepConvert, TheTokensOfAllWorkCountTogether) {
  StepPlan plan;
  plan.work = {{0, false, false, {1, 2, 3}}, {1, false, false, {1, 2, 3}}};
  StepLimits limits;
  limits.max_tokens = 5;
  EXPECT_THAT(FromWire(ToWire(plan), limits), StatusIs(kInvalid));
  limits.max_tokens = 6;
  EXPECT_THAT(FromWire(ToWire(plan), limits), IsOkAndHolds(plan));
}

TEST(StepConvert, RefusesNumbersThatAreNotNumbers) {
  StepPlan plan = FullPlan();
  plan.admissions[0].sampling.temperature = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(FromWire(ToWire(plan)), StatusIs(kInvalid));
  plan = FullPlan();
  plan.admissions[0].sampling.logit_bias[0].second =
      std::numeric_limits<float>::infinity();
  EXPECT_THAT(FromWire(ToWire(plan)), StatusIs(kInvalid));
}

TEST(StepConvert, RefusesNegativeTokens) {
  StepPlan plan = FullPlan();
  plan.work[0].tokens[1] = -1;
  EXPECT_THAT(FromWire(ToWire(plan)), StatusIs(kInvalid));
  plan = FullPlan();
  plan.admissions[0].history[0] = -7;
  EXPECT_THAT(FromWire(ToWire(plan)), StatusIs(kInvalid));
}

TEST(StepConvert, WorkHasTokensOrTheLastSample) {
  StepPlan plan = FullPlan();
  plan.work[0].from_sample = true;
  EXPECT_THAT(FromWire(ToWire(plan)), StatusIs(kInvalid));
  plan = FullPlan();
  plan.work[1].from_sample = false;
  EXPECT_THAT(FromWire(ToWire(plan)), StatusIs(kInvalid));
}

TEST(StepConvert, OnlyWorkThatSamplesHasDraftsAndNotTooMany) {
  StepPlan plan = FullPlan();
  plan.work[1].sample = false;
  EXPECT_THAT(FromWire(ToWire(plan)), StatusIs(kInvalid));
  plan.work[1].sample = true;
  plan.work[1].num_drafts = kMaxDrafts + 1;
  EXPECT_THAT(FromWire(ToWire(plan)), StatusIs(kInvalid));
  plan.work[1].num_drafts = kMaxDrafts;
  EXPECT_THAT(FromWire(ToWire(plan)), IsOkAndHolds(plan));
  StepLimits limits;
  limits.max_tokens = 3 + 1 + static_cast<int64_t>(kMaxDrafts) - 1;
  EXPECT_THAT(FromWire(ToWire(plan), limits), StatusIs(kInvalid));
}

TEST(StepConvert, RefusesANextTokenThatIsNone) {
  auto message = ToWire(FullPlan());
  message.mutable_work(2)->set_next_token(-2);
  EXPECT_THAT(FromWire(message), StatusIs(kInvalid));
}

TEST(StepConvert, ALateInputComesBackAsItWasOrIsRefusedWhole) {
  const LateInput late = {.epoch = 3, .step = 12, .masks = {{1, {~0u, 0, 5}}, {4, {}}}};
  EXPECT_THAT(FromWire(ToWire(late)), IsOkAndHolds(late));
  StepLimits limits;
  limits.max_mask_words = 2;
  EXPECT_THAT(FromWire(ToWire(late), limits), StatusIs(kInvalid));
  limits = StepLimits();
  limits.max_slots = 4;
  EXPECT_THAT(FromWire(ToWire(late), limits), StatusIs(kInvalid));
}

TEST(StepConvert, MaskedWorkSamplesWithoutDrafts) {
  StepPlan plan;
  plan.work = {{1, true, true, {}, 1, -1, true}};
  EXPECT_THAT(FromWire(ToWire(plan)), StatusIs(kInvalid));
  plan.work = {{1, true, false, {}, 0, -1, true}};
  EXPECT_THAT(FromWire(ToWire(plan)), StatusIs(kInvalid));
}

TEST(StepConvert, AResultOverItsLimitsIsRefused) {
  auto counters = ToWire(StepResult());
  counters.mutable_counters()->add_accepted_drafts(1);
  EXPECT_THAT(FromWire(counters), StatusIs(kInvalid));
  StepResult result;
  result.sampled = {{1, -3, 0, 0, {}}};
  EXPECT_THAT(FromWire(ToWire(result)), StatusIs(kInvalid));
  result.sampled = {{1, 3, 0, 0, {{1, 0}, {2, 0}}}};
  StepLimits limits;
  limits.max_top_logprobs = 1;
  EXPECT_THAT(FromWire(ToWire(result), limits), StatusIs(kInvalid));
  result = StepResult();
  result.expert_counts.resize(static_cast<size_t>(limits.max_expert_counts));
  EXPECT_THAT(FromWire(ToWire(result)), IsOkAndHolds(result));
  result.expert_counts.push_back(1);
  EXPECT_THAT(FromWire(ToWire(result)), StatusIs(kInvalid));
}

TEST(StepConvert, AFailureKeepsItsCodeAndMessage) {
  const absl::Status failed = absl::ResourceExhaustedError("no block left");
  EXPECT_EQ(ReplyFromWire(ReplyToWire(failed)).status(), failed);
  EXPECT_THAT(ReplyFromWire({}), StatusIs(kInvalid));
  ::tessera::worker::v1::StepReply ok_failure;
  ok_failure.mutable_failure()->set_code(0);
  EXPECT_THAT(ReplyFromWire(ok_failure), StatusIs(kInvalid));
  ok_failure.mutable_failure()->set_code(12345);
  EXPECT_THAT(ReplyFromWire(ok_failure), StatusIs(absl::StatusCode::kUnknown));
}

}  // namespace
}  // namespace tessera::proto
