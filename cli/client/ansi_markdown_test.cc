#include "cli/client/ansi_markdown.h"

#include <string>
#include <string_view>

#include "gtest/gtest.h"

namespace tessera::cli {
namespace {

// The styled text with its escapes spelled: \e[1m as {1}.
std::string Shown(std::string_view text, size_t piece) {
  AnsiMarkdown markdown;
  std::string out;
  for (size_t i = 0; i < text.size(); i += piece) {
    out += markdown.Append(text.substr(i, piece));
  }
  out += markdown.Finish();
  std::string spelled;
  for (size_t i = 0; i < out.size(); ++i) {
    if (out[i] == '\x1b') {
      const size_t end = out.find('m', i);
      spelled += "{" + out.substr(i + 2, end - i - 2) + "}";
      i = end;
    } else {
      spelled.push_back(out[i]);
    }
  }
  return spelled;
}

struct Case {
  const char* markdown;
  const char* shown;
};

constexpr Case kCases[] = {
    {"plain text\n", "plain text\n"},
    {"# Title\ntext", "{1}Title{0}\ntext"},
    {"#include", "#include"},
    {"a **b** c", "a {0}{1}b{0} c"},
    {"a *b* c", "a {0}{3}b{0} c"},
    {"2 * 3 * 4", "2 * 3 * 4"},
    {"a*b*c", "a*b*c"},
    {"snake_case_name", "snake_case_name"},
    {"use `x = **y` now", "use {0}{36}x = **y{0} now"},
    {"- one\n* two\n", "• one\n• two\n"},
    {"  - inner", "  • inner"},
    {"**all bold**", "{0}{1}all bold{0}"},
    {"> said\n", "{2}│ said{0}\n"},
    {"---\n", "{2}────────────────────────{0}\n"},
    {"```python\nx = a * b\n# no *title*\n```\nend",
     "{36}x = a * b\n# no *title*\n{0}end"},
    {"1. one\n", "1. one\n"},
    {"**open\nnext", "{0}{1}open{0}\nnext"},
    {"**", "**"},
    {"é *ü* ß", "é {0}{3}ü{0} ß"},
    {"\n\na", "\n\na"},
};

TEST(AnsiMarkdown, StylesWhatItKnowsAndKeepsTheRest) {
  for (const Case& c : kCases) {
    EXPECT_EQ(Shown(c.markdown, 1000), c.shown) << c.markdown;
  }
}

TEST(AnsiMarkdown, CutsOfTheStreamMakeNoDifference) {
  for (const Case& c : kCases) {
    for (size_t piece = 1; piece < 6; ++piece) {
      EXPECT_EQ(Shown(c.markdown, piece), c.shown) << c.markdown << " by " << piece;
    }
  }
}

TEST(AnsiMarkdown, TextIsShownAsSoonAsItIsClear) {
  AnsiMarkdown markdown;
  EXPECT_EQ(markdown.Append("He"), "He");
  EXPECT_EQ(markdown.Append("llo "), "llo ");
  EXPECT_EQ(markdown.Append("*"), "");
  EXPECT_EQ(markdown.Append("x"), "\x1b[0m\x1b[3mx");
}

TEST(AnsiMarkdown, AnUnfinishedBlockOfCodeLeavesNoColourBehind) {
  AnsiMarkdown markdown;
  markdown.Append("```\ncode");
  EXPECT_EQ(markdown.Finish(), "\x1b[0m");
  EXPECT_EQ(markdown.Append("next"), "next");
}

}  // namespace
}  // namespace tessera::cli
