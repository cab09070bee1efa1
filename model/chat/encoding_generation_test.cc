#include "model/chat/encoding_generation.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tessera::model {
namespace {

TEST(EncodingGeneration, TheToolsTextNamesTheTagsOfItsGeneration) {
  EncodingGeneration generation = kV4Preview;
  generation.calls_tag = " calls";
  const std::string text = MakeToolsText(generation).before_schemas;
  EXPECT_THAT(text, testing::HasSubstr("</｜DSML｜ calls>"));
  EXPECT_THAT(text, testing::HasSubstr("<｜DSML｜invoke name=\"$TOOL_NAME2\">"));
  EXPECT_THAT(text, testing::Not(testing::HasSubstr("tool_calls>")));
}

TEST(EncodingGeneration, TasksAreNamedByTheirTokens) {
  EXPECT_EQ(TaskToken("read_url"), "<｜read_url｜>");
  EXPECT_EQ(TaskToken("<｜title｜>"), "");
}

TEST(EncodingGeneration, TheMaximumOfThePreviewIsTheHighOfJuly) {
  EXPECT_EQ(kV4Preview.max_effort_text, kV4July.high_effort_text);
  EXPECT_NE(kV4July.max_effort_text, kV4July.high_effort_text);
  EXPECT_TRUE(kV4Preview.high_effort_text.empty());
}

}  // namespace
}  // namespace tessera::model
