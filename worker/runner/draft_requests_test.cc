#include "worker/runner/draft_requests.h"

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

#include "proto/step_plan.h"
#include "worker/runner/sequence_slots.h"

namespace tessera::worker {
namespace {

// Three slots with tokens 1 2 that sampled 3.
class DraftRequestsTest : public ::testing::Test {
 protected:
  DraftRequestsTest()
      : slots_({.num_slots = 3,
                .max_model_len = 16,
                .num_blocks = 16,
                .block_size = 4,
                .num_token_ids = 10,
                .vocab_size = 20,
                .max_drafts = 4}),
        requests_(&slots_, 3) {
    for (uint32_t slot = 0; slot < 3; ++slot) {
      proto::StepPlan plan;
      plan.admissions.push_back({.slot = slot, .blocks = {0, 1}});
      EXPECT_TRUE(slots_.Apply(plan).ok());
      EXPECT_TRUE(slots_.Advance({.slot = slot, .sample = true, .tokens = {1, 2}}).ok());
      slots_.slot(slot).sampled = 3;
      slots_.slot(slot).drafts = {9};
    }
  }

  void Take(std::vector<uint32_t> num_drafts) {
    proto::StepPlan plan;
    for (uint32_t slot = 0; slot < num_drafts.size(); ++slot) {
      plan.work.push_back({.slot = slot,
                           .from_sample = true,
                           .sample = true,
                           .tokens = {},
                           .num_drafts = num_drafts[slot]});
    }
    requests_.Take(plan);
  }

  SequenceSlots slots_;
  DraftRequests requests_;
};

TEST_F(DraftRequestsTest, ThoseWithMostDraftsComeFirstSoThatAPrefixGoesOn) {
  Take({1, 4, 2});
  ASSERT_EQ(requests_.size(), 3);
  EXPECT_EQ(requests_[0].slot, 1u);
  EXPECT_EQ(requests_[2].slot, 0u);
  EXPECT_EQ(requests_[1].num_drafts, 2);
}

TEST_F(DraftRequestsTest, TheHistoryOfTheFirstDraftEndsWithTheSampledToken) {
  Take({2, 0, 0});
  EXPECT_EQ(requests_.slot(0).tokens, (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(requests_[0].length, 2);
}

TEST_F(DraftRequestsTest, FinishGivesTheTokensBackAndTheDraftsOn) {
  Take({3, 0, 0});
  slots_.slot(0).tokens.insert(slots_.slot(0).tokens.end(), {4, 5});
  requests_.Finish();
  EXPECT_EQ(slots_.slot(0).tokens, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(slots_.slot(0).drafts, (std::vector<int32_t>{4, 5}));
  EXPECT_EQ(slots_.slot(0).sampled, 3);
}

TEST_F(DraftRequestsTest, ADraftThatIsNoInputOfTheModelEndsThem) {
  Take({3, 0, 0});
  slots_.slot(0).tokens.insert(slots_.slot(0).tokens.end(), {4, 15, 5});
  requests_.Finish();
  EXPECT_EQ(slots_.slot(0).drafts, (std::vector<int32_t>{4}));
}

TEST_F(DraftRequestsTest, OldDraftsAreForgottenAlsoByWorkThatWantsNone) {
  Take({0, 1, 0});
  EXPECT_TRUE(slots_.slot(0).drafts.empty());
  requests_.Finish();
  EXPECT_TRUE(slots_.slot(1).drafts.empty());
  EXPECT_EQ(slots_.slot(2).tokens, (std::vector<int32_t>{1, 2}));
}

}  // namespace
}  // namespace tessera::worker
