#include "tests/testing/status_matchers.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace tessera::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::Gt;
using ::testing::HasSubstr;
using ::testing::Matcher;
using ::testing::Not;
using ::testing::Pointee;
using ::testing::StringMatchResultListener;

absl::StatusOr<int> Failed() { return absl::DataLossError("checksum 3, expected 4"); }

template <typename T, typename M>
std::string Explain(const M& matcher, const T& value) {
  StringMatchResultListener listener;
  Matcher<const T&>(matcher).MatchAndExplain(value, &listener);
  return listener.str();
}

TEST(StatusMatchers, IsOkSeesStatusAndStatusOr) {
  EXPECT_THAT(absl::OkStatus(), IsOk());
  EXPECT_THAT(absl::StatusOr<int>(3), IsOk());
  EXPECT_THAT(absl::InternalError("x"), Not(IsOk()));
  EXPECT_THAT(Failed(), Not(IsOk()));
}

TEST(StatusMatchers, StatusIsComparesCodeAndMessage) {
  EXPECT_THAT(Failed(), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(Failed(), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("expected 4")));
  EXPECT_THAT(Failed(), Not(StatusIs(absl::StatusCode::kInternal)));
  EXPECT_THAT(Failed(),
              Not(StatusIs(absl::StatusCode::kDataLoss, HasSubstr("expected 5"))));
  EXPECT_THAT(Failed(), StatusIs(absl::StatusCode::kDataLoss, "checksum 3, expected 4"));
}

TEST(StatusMatchers, IsOkAndHoldsLooksAtTheValue) {
  EXPECT_THAT(absl::StatusOr<int>(3), IsOkAndHolds(3));
  EXPECT_THAT(absl::StatusOr<int>(3), IsOkAndHolds(Gt(2)));
  EXPECT_THAT(absl::StatusOr<int>(3), Not(IsOkAndHolds(4)));
  EXPECT_THAT(Failed(), Not(IsOkAndHolds(3)));
  const absl::StatusOr<std::vector<std::string>> words({"a", "b"});
  EXPECT_THAT(words, IsOkAndHolds(ElementsAre("a", "b")));
}

TEST(StatusMatchers, IsOkAndHoldsTakesMoveOnlyValues) {
  EXPECT_THAT(absl::StatusOr<std::unique_ptr<int>>(std::make_unique<int>(7)),
              IsOkAndHolds(Pointee(7)));
}

TEST(StatusMatchers, FailureShowsTheMessage) {
  EXPECT_THAT(Explain(IsOk(), Failed()), HasSubstr("checksum 3, expected 4"));
  EXPECT_THAT(Explain(IsOkAndHolds(1), Failed()), HasSubstr("checksum 3, expected 4"));
}

}  // namespace
}  // namespace tessera::testing
