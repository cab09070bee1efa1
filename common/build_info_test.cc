#include "common/build_info.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera {
namespace {

TEST(BuildInfo, VersionIsThreeNumbers) {
  EXPECT_THAT(std::string(Version()),
              ::testing::MatchesRegex("[0-9]+\\.[0-9]+\\.[0-9]+"));
}

TEST(BuildInfo, CompilerHasAVersion) {
  EXPECT_THAT(std::string(Compiler()), ::testing::ContainsRegex("^[a-zA-Z]+ [0-9]+"));
}

}  // namespace
}  // namespace tessera
