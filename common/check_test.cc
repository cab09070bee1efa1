#include "common/check.h"

#include "gtest/gtest.h"

namespace tessera {
namespace {

TEST(CheckDeathTest, FailurePrintsTheExpressionAndThePlace) {
  const int rows = 3;
  EXPECT_DEATH(TESSERA_CHECK(rows == 4), "check_test\\.cc.*rows == 4");
}

TEST(CheckDeathTest, ComparisonPrintsBothValues) {
  const int rows = 3;
  EXPECT_DEATH(TESSERA_CHECK_EQ(rows, 4), "3 vs 4");
  EXPECT_DEATH(TESSERA_CHECK_LT(rows, 3), "3 vs 3");
  EXPECT_DEATH(TESSERA_CHECK_LE(rows, 2), "3 vs 2");
}

TEST(Check, EvaluatesItsArgumentsOnce) {
  int calls = 0;
  TESSERA_CHECK(++calls > 0);
  TESSERA_CHECK_EQ(++calls, 2);
  EXPECT_EQ(calls, 2);
}

}  // namespace
}  // namespace tessera
