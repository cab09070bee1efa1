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

TEST(EncodingGeneration, TheMaximumOfThePreviewIsTheHighOfJuly) {
  const auto text = [](const EncodingGeneration& generation, ReasoningEffort effort) {
    return *EffortText(generation, effort, 0);
  };
  EXPECT_EQ(text(kV4Preview, ReasoningEffort::kMax),
            text(kV4July, ReasoningEffort::kHigh));
  EXPECT_NE(text(kV4July, ReasoningEffort::kMax), text(kV4July, ReasoningEffort::kHigh));
  EXPECT_EQ(text(kV4Preview, ReasoningEffort::kHigh), "");
  EXPECT_EQ(text(kV4July, ReasoningEffort::kLow), "");
}

TEST(EncodingGeneration, EffortsOfV41AreNumbers) {
  const auto number = [](ReasoningEffort effort, int32_t own) {
    const std::string text = *EffortText(kV41, effort, own);
    return text.substr(0, text.find(" (range 1-100"));
  };
  EXPECT_EQ(number(ReasoningEffort::kLow, 0), "Reasoning Effort: 50");
  EXPECT_EQ(number(ReasoningEffort::kNone, 0), "Reasoning Effort: 75");
  EXPECT_EQ(number(ReasoningEffort::kMax, 0), "Reasoning Effort: 100");
  EXPECT_EQ(number(ReasoningEffort::kMax, 7), "Reasoning Effort: 7");
}

TEST(EncodingGeneration, NumbersOutOfPlaceAreRefused) {
  const auto refused = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(EffortText(kV41, ReasoningEffort::kNone, 101).status().code(), refused);
  EXPECT_EQ(EffortText(kV41, ReasoningEffort::kNone, -1).status().code(), refused);
  EXPECT_EQ(EffortText(kV4July, ReasoningEffort::kNone, 50).status().code(), refused);
}

}  // namespace
}  // namespace tessera::model
