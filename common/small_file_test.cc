#include "common/small_file.h"

#include <cstdlib>
#include <fstream>
#include <string>

#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera {
namespace {

using ::tessera::testing::IsOkAndHolds;
using ::tessera::testing::StatusIs;

std::string Write(const std::string& text) {
  std::string path = ::testing::TempDir() + "/small_file_test_" +
                     ::testing::UnitTest::GetInstance()->current_test_info()->name();
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

TEST(SmallFile, IsReadByteByByte) {
  const std::string text("a\r\n\0\xff", 5);
  EXPECT_THAT(ReadSmallFile(Write(text), "a test"), IsOkAndHolds(text));
}

TEST(SmallFile, IsRefusedFromOneByteTooMuchOn) {
  EXPECT_THAT(ReadSmallFile(Write(std::string(kMaxSmallFileBytes, 'a')), "a test"),
              IsOkAndHolds(std::string(kMaxSmallFileBytes, 'a')));
  EXPECT_THAT(ReadSmallFile(Write(std::string(kMaxSmallFileBytes + 1, 'a')), "a test"),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(SmallFile, IsNotFoundWhereThereIsNone) {
  EXPECT_THAT(ReadSmallFile("no/such/file", "a test"),
              StatusIs(absl::StatusCode::kNotFound));
}

}  // namespace
}  // namespace tessera
