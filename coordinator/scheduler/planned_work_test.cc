#include "coordinator/scheduler/planned_work.h"

#include <cstdint>
#include <vector>

#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera::coordinator {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;

proto::StepResult Result(std::vector<proto::SampledToken> sampled) {
  return {.epoch = 1, .step = 1, .sampled = std::move(sampled), .counters = {}};
}

proto::SampledToken Sample(uint32_t slot, uint32_t position, int32_t token = 9) {
  return {.slot = slot, .token = token, .position = position, .logprob = 0, .top = {}};
}

// Slot 3 decodes a sequence of 10 tokens with two drafts, slot 5 ends a prompt of 4.
class PlannedWorkTest : public ::testing::Test {
 protected:
  PlannedWorkTest() {
    decoding_.tokens.resize(10);
    decoding_.max_length = 20;
    prefilling_.tokens.resize(4);
    prefilling_.max_length = 20;
    planned_.step = 1;
    planned_.work = {{&decoding_, 3, 3, 2, true, 14}, {&prefilling_, 5, 4, 0, true, 4}};
  }

  Sequence decoding_;
  Sequence prefilling_;
  PlannedRankStep planned_;
};

TEST_F(PlannedWorkTest, ASlotMayAnswerWithOneTokenAndOneMoreForEachDraft) {
  const std::vector<proto::SampledToken> all = {Sample(3, 10), Sample(3, 11),
                                                Sample(3, 12), Sample(5, 4)};
  EXPECT_THAT(CheckSamples(planned_, Result(all)), IsOk());
  EXPECT_THAT(CheckSamples(planned_, Result({all[0], all[1], all[3]})), IsOk());
  EXPECT_THAT(CheckSamples(planned_, Result({all[0], all[3]})), IsOk());
  EXPECT_THAT(CheckSamples(planned_, Result({all[3], all[0], all[1]})), IsOk());
}

TEST_F(PlannedWorkTest, TheSamplesOfASlotAreFoundInAnyOrderOfSlots) {
  const proto::StepResult result = Result({Sample(5, 4), Sample(3, 10), Sample(3, 11)});
  EXPECT_EQ(FindSamples(result, 3, 0).size(), 2u);
  EXPECT_EQ(FindSamples(result, 5, 2).size(), 1u);
  EXPECT_TRUE(FindSamples(result, 4, 0).empty());
  EXPECT_TRUE(FindSamples(result, 4, 9).empty());
}

TEST_F(PlannedWorkTest, RefusesTokensThatWereNotAskedFor) {
  const proto::SampledToken other = Sample(5, 4);
  for (const std::vector<proto::SampledToken>& wrong :
       std::vector<std::vector<proto::SampledToken>>{
           {Sample(3, 10)},  // none for 5
           {other},          // none for 3
           {Sample(3, 10), Sample(3, 11), Sample(3, 12), Sample(3, 13), other},
           {Sample(3, 10), Sample(5, 4), Sample(5, 5)},  // no drafts
           {Sample(3, 11), other},                       // a gap before
           {Sample(3, 10), Sample(3, 12), other},        // a gap
           {Sample(3, 10), Sample(3, 10), other},        // twice
           {Sample(3, 10), Sample(3, 11, -1), other},    // no token
           {Sample(3, 10), other, Sample(3, 11)},        // not together
           {Sample(3, 10), other, Sample(4, 1)}}) {
    EXPECT_THAT(CheckSamples(planned_, Result(wrong)),
                StatusIs(absl::StatusCode::kInternal));
  }
}

TEST_F(PlannedWorkTest, OfAFinishedSequenceOnlyTheBoundIsKnown) {
  decoding_.finished = true;
  EXPECT_THAT(
      CheckSamples(planned_, Result({Sample(3, 12), Sample(3, 13), Sample(5, 4)})),
      IsOk());
  EXPECT_THAT(
      CheckSamples(planned_, Result({Sample(3, 14), Sample(3, 15), Sample(5, 4)})),
      StatusIs(absl::StatusCode::kInternal));
}

TEST_F(PlannedWorkTest, AProbeSamplesItsOnePosition) {
  planned_.work = {{nullptr, 0, 1, 0, true, 1}};
  EXPECT_THAT(CheckSamples(planned_, Result({Sample(0, 1)})), IsOk());
  EXPECT_THAT(CheckSamples(planned_, Result({Sample(0, 0)})),
              StatusIs(absl::StatusCode::kInternal));
}

}  // namespace
}  // namespace tessera::coordinator
