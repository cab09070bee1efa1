#include "cli/client/edit_line.h"

#include <string>

#include "gtest/gtest.h"

namespace tessera::cli {
namespace {

TEST(EditLine, InsertsAndErasesWholeCharacters) {
  EditLine line;
  line.Insert("aé€");
  line.Left();
  EXPECT_EQ(line.cursor(), 3u);
  line.EraseBefore();
  EXPECT_EQ(line.text(), "a€");
  line.EraseAfter();
  EXPECT_EQ(line.text(), "a");
  line.EraseAfter();
  line.Right();
  line.EraseBefore();
  line.EraseBefore();
  EXPECT_EQ(line.text(), "");
}

TEST(EditLine, MovesAndErasesByWord) {
  EditLine line;
  line.Insert("one two  three");
  line.EraseWordBefore();
  EXPECT_EQ(line.text(), "one two  ");
  line.WordLeft();
  EXPECT_EQ(line.cursor(), 4u);
  line.EraseToBegin();
  EXPECT_EQ(line.text(), "two  ");
  line.WordRight();
  EXPECT_EQ(line.cursor(), 3u);
  line.EraseToEnd();
  EXPECT_EQ(line.text(), "two");
}

TEST(EditLine, HistoryKeepsWhatIsBeingTyped) {
  EditLine line;
  for (const char* text : {"first", "second", "second", "  "}) {
    line.Insert(text);
    EXPECT_EQ(line.Take(), text);
  }
  line.Insert("draft");
  line.Older();
  EXPECT_EQ(line.text(), "second");
  line.Older();
  EXPECT_EQ(line.text(), "first");
  line.Older();
  EXPECT_EQ(line.text(), "first");
  line.Newer();
  line.Newer();
  EXPECT_EQ(line.text(), "draft");
  line.Newer();
  EXPECT_EQ(line.text(), "draft");
}

TEST(EditLine, AChangedEntryIsANewOne) {
  EditLine line;
  line.Insert("one");
  line.Take();
  line.Older();
  line.Insert("!");
  EXPECT_EQ(line.Take(), "one!");
  line.Older();
  line.Older();
  EXPECT_EQ(line.text(), "one");
}

TEST(EditLine, TextAndHistoryAreBounded) {
  EditLine line;
  line.Insert(std::string(EditLine::kMaxBytes, 'x'));
  line.Insert("y");
  EXPECT_EQ(line.Take().size(), EditLine::kMaxBytes);
  for (size_t i = 0; i < 2 * EditLine::kMaxHistory; ++i) {
    line.Insert(std::to_string(i));
    line.Take();
  }
  size_t entries = 0;
  for (std::string before = "?"; line.text() != before; ++entries) {
    before = line.text();
    line.Older();
  }
  EXPECT_EQ(line.text(), std::to_string(EditLine::kMaxHistory));
  EXPECT_EQ(entries, EditLine::kMaxHistory + 1);
}

}  // namespace
}  // namespace tessera::cli
