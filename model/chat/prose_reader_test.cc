#include "model/chat/prose_reader.h"

#include "gtest/gtest.h"

namespace tessera::model {
namespace {

const ProseRules kRules = {.block_open = "<calls>"};

// Feeds `text` in pieces; what is left pending at the end is given out, as a reader does.
TurnParser::Delta Read(const ProseRules& rules, std::string_view text, bool thinking,
                       size_t piece_bytes) {
  ProseReader reader(&rules, thinking);
  TurnParser::Delta delta;
  std::string pending;
  for (size_t pos = 0; pos < text.size(); pos += piece_bytes) {
    pending += text.substr(pos, piece_bytes);
    const ProseReader::Step step = reader.Read(pending, &delta);
    pending.erase(0, step.num_bytes);
    if (step.found_block) {
      delta.content += "|";
      return delta;
    }
  }
  reader.Emit(pending, &delta);
  return delta;
}

void ExpectProse(const ProseRules& rules, std::string_view text, bool thinking,
                 std::string_view reasoning, std::string_view content) {
  for (size_t piece = 1; piece <= text.size() + 1; ++piece) {
    const TurnParser::Delta delta = Read(rules, text, thinking, piece);
    EXPECT_EQ(delta.reasoning, reasoning) << text << " in pieces of " << piece;
    EXPECT_EQ(delta.content, content) << text << " in pieces of " << piece;
  }
}

TEST(ProseReader, OverlapIsTheLongestBegunTag) {
  EXPECT_EQ(OverlapWith("a<ca", "<calls>"), 3U);
  EXPECT_EQ(OverlapWith("<calls>", "<calls>"), 0U);
  EXPECT_EQ(OverlapWith("<<", "<<<"), 2U);
  EXPECT_EQ(OverlapWith("", "<calls>"), 0U);
}

TEST(ProseReader, TheReasoningEndsAtItsTagOrAtABlock) {
  ExpectProse(kRules, "why</think>text", true, "why", "text");
  ExpectProse(kRules, "why<calls>", true, "why", "|");
  ExpectProse(kRules, "why", true, "why", "");
}

TEST(ProseReader, AStrayEndOfTheReasoningIsLeftOut) {
  ExpectProse(kRules, "a</think>b</think>c", false, "", "abc");
}

TEST(ProseReader, LineBreaksAfterTheReasoningAreDroppedOrKept) {
  ExpectProse(kRules, "why</think>\n\ntext\n", true, "why", "text\n");
  ProseRules keeping = kRules;
  keeping.keeps_line_breaks = true;
  ExpectProse(keeping, "why</think>\n\ntext\n", true, "why", "\n\ntext\n");
}

TEST(ProseReader, TheBlankLineBeforeABlockBelongsToItWhereTheRulesSaySo) {
  ExpectProse(kRules, "text\n\n<calls>", false, "", "text\n\n|");
  ProseRules with_line = kRules;
  with_line.blank_line_before_block = true;
  ExpectProse(with_line, "text\n\n<calls>", false, "", "text|");
  ExpectProse(with_line, "text<calls>", false, "", "text|");
}

TEST(ProseReader, ATurnMayOpenItsReasoningItselfAtItsStartOnly) {
  ProseRules opening = kRules;
  opening.may_open_reasoning = true;
  ExpectProse(opening, "<think>why</think>text", false, "why", "text");
  ExpectProse(opening, "<think>why</think>text", true, "why", "text");
  ExpectProse(opening, "a<think>b", false, "", "a<think>b");
  ExpectProse(opening, "<thi", false, "", "<thi");
  ExpectProse(kRules, "<think>why", false, "", "<think>why");
}

}  // namespace
}  // namespace tessera::model
