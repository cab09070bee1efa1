#include "coordinator/service/expert_reports.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera::coordinator {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class ExpertReportsTest : public ::testing::Test {
 protected:
  std::vector<size_t> Step(absl::Duration pause, bool probe = false) {
    now_ += pause;
    plans_.assign(2, proto::StepPlan());
    return reports_.Ask(probe, now_, plans_);
  }

  ExpertReports reports_{/*num_counts=*/6, /*num_dp_ranks=*/2, absl::Seconds(2)};
  absl::Time now_ = absl::FromUnixSeconds(1000);
  std::vector<proto::StepPlan> plans_;
};

TEST_F(ExpertReportsTest, RanksTakeTurnsOncePerPeriod) {
  EXPECT_THAT(Step(absl::ZeroDuration()), ElementsAre(0));
  EXPECT_TRUE(plans_[0].reports_expert_counts);
  EXPECT_FALSE(plans_[1].reports_expert_counts);
  EXPECT_THAT(Step(absl::Milliseconds(999)), IsEmpty());
  EXPECT_THAT(Step(absl::Milliseconds(1)), ElementsAre(1));
  EXPECT_THAT(Step(absl::Milliseconds(999)), IsEmpty());
  EXPECT_THAT(Step(absl::Hours(1)), ElementsAre(0)) << "never two at once";
}

TEST_F(ExpertReportsTest, AProbeIsNotCountedAndBringsWhatWasNotTold) {
  EXPECT_THAT(Step(absl::ZeroDuration(), /*probe=*/true), IsEmpty());
  EXPECT_TRUE(plans_[0].leaves_expert_counts && plans_[1].leaves_expert_counts);
  EXPECT_THAT(Step(absl::Seconds(1)), ElementsAre(0));
  EXPECT_FALSE(plans_[0].leaves_expert_counts);
  EXPECT_THAT(Step(absl::Milliseconds(1), /*probe=*/true), ElementsAre(1));
  EXPECT_THAT(Step(absl::Milliseconds(1), /*probe=*/true), IsEmpty());
  EXPECT_THAT(Step(absl::Milliseconds(1)), IsEmpty());
  EXPECT_THAT(Step(absl::Milliseconds(1), /*probe=*/true), ElementsAre(0, 1));
}

TEST_F(ExpertReportsTest, AReportHasTheSizeThatItMustHave) {
  std::vector<proto::StepResult> results(2);
  const std::vector<size_t> asked = {1};
  EXPECT_THAT(reports_.Check({}, results), IsOk());
  EXPECT_THAT(reports_.Check(asked, results), StatusIs(absl::StatusCode::kInternal));
  for (const size_t size : {size_t{5}, size_t{7}, size_t{6}}) {
    results[1].expert_counts.resize(size);
    EXPECT_EQ(reports_.Check(asked, results).ok(), size == 6) << size;
  }
  EXPECT_THAT(reports_.Check({}, results), StatusIs(absl::StatusCode::kInternal))
      << "nobody asked";
}

TEST(ExpertReports, AModelWithoutExpertsIsNeverAsked) {
  ExpertReports reports(0, 1, absl::Seconds(2));
  std::vector<proto::StepPlan> plans(1);
  EXPECT_THAT(reports.Ask(false, absl::FromUnixSeconds(1), plans), IsEmpty());
  EXPECT_EQ(plans[0], proto::StepPlan());
}

}  // namespace
}  // namespace tessera::coordinator
