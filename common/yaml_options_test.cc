#include "common/yaml_options.h"

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/status/status.h"
#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOkAndHolds;
using testing::StatusIs;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

class YamlOptionsTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::vector<YamlOption>> Read(const std::string& text) {
    const std::string path = ::testing::TempDir() + "yaml_options_test.yaml";
    std::ofstream(path) << text;
    return ReadYamlOptions(path);
  }
};

TEST_F(YamlOptionsTest, ScalarsAndListsKeepTheirText) {
  const auto options = Read("# A comment.\nport: 8001\nmodel: 'a b'\nstop: [x, '1']\n");
  ASSERT_THAT(options, testing::IsOk());
  ASSERT_EQ(options->size(), 3u);
  EXPECT_EQ((*options)[0].key, "port");
  EXPECT_EQ((*options)[0].line, 2);
  EXPECT_THAT((*options)[0].values, ElementsAre("8001"));
  EXPECT_THAT((*options)[1].values, ElementsAre("a b"));
  EXPECT_THAT((*options)[2].values, ElementsAre("x", "1"));
}

TEST_F(YamlOptionsTest, AnEmptyFileHasNoOptions) {
  EXPECT_THAT(Read(""), IsOkAndHolds(IsEmpty()));
  EXPECT_THAT(Read("# only a comment\n"), IsOkAndHolds(IsEmpty()));
}

TEST_F(YamlOptionsTest, AKeyGivenTwiceIsAnError) {
  EXPECT_THAT(Read("port: 1\nhost: a\nport: 2\n"),
              StatusIs(kInvalid, HasSubstr("line 3: port is given twice")));
}

TEST_F(YamlOptionsTest, NestedKeysAreAnError) {
  EXPECT_THAT(Read("a:\n  b: 1\n"), StatusIs(kInvalid, HasSubstr("nested keys")));
  EXPECT_THAT(Read("a: [[1]]\n"), StatusIs(kInvalid, HasSubstr("nested list")));
  EXPECT_THAT(Read("a:\n"), StatusIs(kInvalid, HasSubstr("no value")));
  EXPECT_THAT(Read("- a\n"), StatusIs(kInvalid, HasSubstr("not a map")));
}

TEST_F(YamlOptionsTest, BrokenYamlIsAnErrorWithItsLine) {
  EXPECT_THAT(Read("a: 1\nb: [1, 2\n"), StatusIs(kInvalid, HasSubstr("line")));
  EXPECT_THAT(Read("a: *nowhere\n"), StatusIs(kInvalid));
  EXPECT_THAT(Read(std::string(20000, '[')), StatusIs(kInvalid));
}

TEST_F(YamlOptionsTest, AHugeFileIsRefused) {
  EXPECT_THAT(Read(std::string((1 << 20) + 1, '#')),
              StatusIs(kInvalid, HasSubstr("large")));
}

TEST_F(YamlOptionsTest, AMissingFileIsNotFound) {
  EXPECT_THAT(ReadYamlOptions("/nonexistent.yaml"),
              StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(ReadYamlOptions(::testing::TempDir()), ::testing::Not(testing::IsOk()));
}

TEST_F(YamlOptionsTest, ScalarsAreQuotedSoThatTheyReadBack) {
  for (const std::string text : {"", "a b", "# x", "a: b", "*", "'", "\"", "8000", "true",
                                 "[x]", "a\nb", "- x", "ü"}) {
    const auto options = Read("key: " + YamlScalar(text) + "\n");
    ASSERT_THAT(options, testing::IsOk()) << text;
    EXPECT_THAT(options->at(0).values, ElementsAre(text));
  }
}

}  // namespace
}  // namespace tessera
