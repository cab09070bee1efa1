#include "proto/decode_rows.h"

#include <vector>

#include "gtest/gtest.h"

namespace tessera::proto {
namespace {

const SlotWork kDecode = {.slot = 0, .from_sample = true, .sample = true};
const SlotWork kGivenToken = {.slot = 0, .sample = true, .tokens = {7}};

std::vector<SlotWork> OtherWork() {
  SlotWork drafts = kDecode;
  drafts.num_drafts = 1;
  SlotWork chunk = kGivenToken;
  chunk.sample = false;
  SlotWork prompt = kGivenToken;
  prompt.tokens = {7, 8};
  return {drafts, chunk, prompt};
}

StepPlan PlanOf(std::vector<SlotWork> work, uint32_t decode_rows = 0) {
  StepPlan plan;
  plan.work = std::move(work);
  plan.decode_rows = decode_rows;
  return plan;
}

TEST(DecodeRows, AreThoseOfTheRankWithMost) {
  EXPECT_EQ(DecodeRowsOf(std::vector<StepPlan>{PlanOf({kDecode})}), 1);
  EXPECT_EQ(DecodeRowsOf(std::vector<StepPlan>{
                PlanOf({kDecode}), PlanOf({kGivenToken, kDecode, kDecode}), PlanOf({})}),
            3);
}

TEST(DecodeRows, AreNoneWhereARankDoesAnythingElse) {
  for (const SlotWork& other : OtherWork()) {
    EXPECT_FALSE(IsDecodeWork(other));
    EXPECT_EQ(
        DecodeRowsOf(std::vector<StepPlan>{PlanOf({kDecode}), PlanOf({kDecode, other})}),
        0);
    EXPECT_EQ(DecodeRowsOf(std::vector<StepPlan>{PlanOf({other}), PlanOf({kDecode})}), 0);
  }
}

TEST(DecodeRows, AreNoneWhereNobodyDoesAnything) {
  EXPECT_EQ(DecodeRowsOf({}), 0);
  EXPECT_EQ(DecodeRowsOf(std::vector<StepPlan>{PlanOf({}), PlanOf({})}), 0);
}

TEST(DecodeRows, HaveToFitTheRanksOwnWorkAndWhatItHolds) {
  EXPECT_TRUE(CheckDecodeRows(PlanOf({kDecode, kGivenToken}, 2), 2).ok());
  EXPECT_TRUE(CheckDecodeRows(PlanOf({kDecode}, 2), 2).ok());
  EXPECT_TRUE(CheckDecodeRows(PlanOf({}, 2), 2).ok());
  const auto is_refused = [](const StepPlan& plan, int64_t max_rows) {
    return CheckDecodeRows(plan, max_rows).code() == absl::StatusCode::kInvalidArgument;
  };
  EXPECT_TRUE(is_refused(PlanOf({kDecode}, 3), 2));
  EXPECT_TRUE(is_refused(PlanOf({kDecode, kDecode}, 1), 2));
  for (const SlotWork& other : OtherWork()) {
    EXPECT_TRUE(CheckDecodeRows(PlanOf({kDecode, other}), 2).ok());
    EXPECT_TRUE(is_refused(PlanOf({kDecode, other}, 2), 2));
  }
}

}  // namespace
}  // namespace tessera::proto
