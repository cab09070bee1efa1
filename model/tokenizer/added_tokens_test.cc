#include "model/tokenizer/added_tokens.h"

#include "gtest/gtest.h"

namespace tessera::model {
namespace {

std::string Shown(const AddedTokenTrie& trie, std::string_view text) {
  std::string shown;
  trie.Split(text, [&shown](const AddedTokenTrie::Segment& segment) {
    shown += segment.id < 0 ? "(" + std::string(segment.text) + ")"
                            : "[" + std::to_string(segment.id) + "]";
  });
  return shown;
}

TEST(AddedTokenTrie, TakesTheLongestOfTheLeftmostMatches) {
  const AddedTokenTrie trie({{.id = 1, .content = "<a>"},
                             {.id = 2, .content = "<a>b"},
                             {.id = 3, .content = "bcd"}});
  EXPECT_EQ(Shown(trie, "x<a>y<a>bcd"), "(x)[1](y)[2](cd)");
}

TEST(AddedTokenTrie, AFailedMatchLosesNoText) {
  const AddedTokenTrie trie({{.id = 1, .content = "aab"}});
  EXPECT_EQ(Shown(trie, "aaab"), "(a)[1]");
  EXPECT_EQ(Shown(trie, "aaaa"), "(aaaa)");
}

TEST(AddedTokenTrie, NeighboursLeaveNoEmptyText) {
  const AddedTokenTrie trie({{.id = 1, .content = "｜x｜"}});
  EXPECT_EQ(Shown(trie, "｜x｜｜x｜"), "[1][1]");
  EXPECT_EQ(Shown(trie, ""), "");
}

TEST(AddedTokenTrie, WithoutTokensAllIsText) {
  EXPECT_EQ(Shown(AddedTokenTrie({}), "abc"), "(abc)");
}

}  // namespace
}  // namespace tessera::model
