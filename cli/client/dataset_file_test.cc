#include "cli/client/dataset_file.h"

#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/testing/status_matchers.h"

namespace tessera::cli {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;

std::string FileOf(const std::string& text) {
  const std::string path =
      ::testing::TempDir() + "/" +
      ::testing::UnitTest::GetInstance()->current_test_info()->name();
  std::ofstream(path) << text;
  return path;
}

std::string Turns(const std::string& prompt, const std::string& answer) {
  return R"({"conversations":[{"from":"human","value":")" + prompt +
         R"("},{"from":"gpt","value":")" + answer + R"("}]})";
}

TEST(DatasetFile, AConversationIsItsFirstQuestionAndTheLengthOfTheAnswer) {
  const std::string path =
      FileOf("[" + Turns(std::string(40, 'q'), std::string(80, 'a')) +
             ",{\"conversations\":[]},{\"id\":1},7]");
  const auto prompts = ReadShareGpt(path, std::nullopt);
  ASSERT_THAT(prompts, IsOk());
  ASSERT_EQ(prompts->size(), 1U);
  EXPECT_EQ(prompts->at(0).text, std::string(40, 'q'));
  EXPECT_EQ(prompts->at(0).output_len, 20);
}

TEST(DatasetFile, ConversationsThatAreTooShortOrTooLongAreLeftOut) {
  const std::string answer(80, 'a');
  const std::string path =
      FileOf("[" + Turns("q", answer) + "," + Turns(std::string(8000, 'q'), answer) +
             "," + Turns(std::string(40, 'q'), "a") + "]");
  EXPECT_THAT(ReadShareGpt(path, std::nullopt),
              StatusIs(absl::StatusCode::kInvalidArgument));
  const auto prompts = ReadShareGpt(path, 7);  // The third: its answer matters no more.
  ASSERT_THAT(prompts, IsOk());
  ASSERT_EQ(prompts->size(), 1U);
  EXPECT_EQ(prompts->at(0).output_len, 7);
}

TEST(DatasetFile, LinesMayStateTheirLengths) {
  const std::string path = FileOf(
      "{\"prompt\": \"one\", \"output_tokens\": 3}\n\n{\"prompt\": \"two\", "
      "\"output_tokens\": 4}");
  const auto prompts = ReadCustomLines(path, std::nullopt);
  ASSERT_THAT(prompts, IsOk());
  ASSERT_EQ(prompts->size(), 2U);
  EXPECT_EQ(prompts->at(1).text, "two");
  EXPECT_EQ(prompts->at(1).output_len, 4);
}

TEST(DatasetFile, ABadLineIsNamedByItsNumber) {
  for (const char* bad : {"{\"prompt\": 3}", "{\"prompt\": \"x\"}", "[]", "{",
                          "{\"prompt\": \"x\", \"output_tokens\": 0}"}) {
    const std::string path =
        FileOf(std::string("{\"prompt\": \"x\", \"output_tokens\": 1}\n") + bad);
    const absl::Status status = ReadCustomLines(path, std::nullopt).status();
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument)) << bad;
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(":2:")) << bad;
  }
}

TEST(DatasetFile, AMissingOrAnEmptyFileIsAnError) {
  EXPECT_THAT(ReadShareGpt("/nonexistent/file", 1),
              StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(ReadCustomLines(FileOf(""), 1),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(ReadShareGpt(FileOf(""), 1), StatusIs(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace tessera::cli
