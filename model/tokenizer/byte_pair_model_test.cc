#include "model/tokenizer/byte_pair_model.h"

#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "model/tokenizer/byte_alphabet.h"

namespace tessera::model {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// The 256 bytes as ids 0..255, then one id per merge.
TokenizerSpec SpecWith(const std::vector<std::pair<std::string, std::string>>& merges) {
  TokenizerSpec spec;
  for (int byte = 0; byte < 256; ++byte) {
    spec.vocabulary.push_back(
        {SpellBytes(std::string(1, static_cast<char>(byte))), byte});
  }
  for (const auto& [left, right] : merges) {
    spec.vocabulary.push_back(
        {left + right, static_cast<int32_t>(spec.vocabulary.size())});
  }
  spec.merges = merges;
  return spec;
}

std::unique_ptr<BytePairModel> ModelWith(
    const std::vector<std::pair<std::string, std::string>>& merges) {
  auto model = BytePairModel::Create(SpecWith(merges));
  EXPECT_TRUE(model.ok()) << model.status();
  return std::move(*model);
}

std::vector<int32_t> Encode(const BytePairModel& model, std::string_view piece) {
  std::vector<int32_t> ids;
  model.Encode(piece, &ids);
  return ids;
}

// BPE as its definition says, quadratic.
std::vector<int32_t> EncodeByDefinition(
    const std::vector<std::pair<std::string, std::string>>& merges,
    std::string_view piece) {
  std::vector<std::string> symbols;
  for (const char c : piece) {
    symbols.emplace_back(1, c);
  }
  for (;;) {
    size_t best_rank = merges.size();
    size_t best = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      for (size_t rank = 0; rank < best_rank; ++rank) {
        if (merges[rank].first == symbols[i] && merges[rank].second == symbols[i + 1]) {
          best_rank = rank;
          best = i;
        }
      }
    }
    if (best_rank == merges.size()) {
      break;
    }
    symbols[best] += symbols[best + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  std::vector<int32_t> ids;
  for (const std::string& symbol : symbols) {
    int32_t id = static_cast<uint8_t>(symbol[0]);
    for (size_t rank = 0; rank < merges.size() && symbol.size() > 1; ++rank) {
      if (merges[rank].first + merges[rank].second == symbol) {
        id = 256 + static_cast<int32_t>(rank);
      }
    }
    ids.push_back(id);
  }
  return ids;
}

const std::vector<std::pair<std::string, std::string>> kMerges = {
    {"a", "a"},   {"b", "a"},   {"aa", "b"},  {"ba", "ba"},
    {"aa", "aa"}, {"c", "aab"}, {"baba", "c"}};

// Pieces come again and displace each other: 4096 places, more pieces than that.
TEST(BytePairModel, AMemoChangesNoId) {
  const auto model = ModelWith({{"a", "b"}, {"ab", "c"}, {"c", "d"}, {"x", "y"}});
  std::mt19937 random(5);
  std::vector<std::string> pieces;
  for (int i = 0; i < 20000; ++i) {
    std::string& piece = pieces.emplace_back();
    const size_t length = random() % 9;
    for (size_t j = 0; j < length; ++j) {
      piece += "abcdxyz "[random() % 8];
    }
  }
  for (const size_t text_bytes : {size_t{10}, size_t{1} << 20}) {
    BytePairModel::Memo memo(text_bytes);
    std::vector<int32_t> ids;
    std::vector<int32_t> expected;
    for (const std::string& piece : pieces) {
      model->Encode(piece, &memo, &ids);
      model->Encode(piece, &expected);
    }
    EXPECT_EQ(ids, expected);
  }
}

// "abc" is a token, but the better merge of "bc" leaves no way to it.
TEST(BytePairModel, ATokenThatMergesDoNotReachIsNotTaken) {
  const auto model = ModelWith({{"b", "c"}, {"a", "b"}, {"ab", "c"}});
  EXPECT_THAT(Encode(*model, "abc"), ElementsAre('a', 256));
  EXPECT_THAT(Encode(*model, "ab"), ElementsAre(257));
}

TEST(BytePairModel, MergesByRankThenFromTheLeft) {
  const auto model = ModelWith(kMerges);
  EXPECT_THAT(Encode(*model, "aaa"), ElementsAre(256, 'a'));
  EXPECT_THAT(Encode(*model, "baa"), ElementsAre('b', 256));
  EXPECT_THAT(Encode(*model, "aaaa"), ElementsAre(260));
}

TEST(BytePairModel, ShortAndLongPiecesFollowTheDefinition) {
  const auto model = ModelWith(kMerges);
  const uint32_t seed = 20240607;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 300; ++round) {
    std::string piece(random() % 200 + 1, 'a');
    for (char& c : piece) {
      c = "abc"[random() % 3];
    }
    ASSERT_EQ(Encode(*model, piece), EncodeByDefinition(kMerges, piece)) << piece;
  }
}

TEST(BytePairModel, AMegabytePieceTakesNearlyLinearTime) {
  // Quadratic time would be 10^12 steps: the test would end at its timeout.
  const auto model = ModelWith(kMerges);
  const std::string piece(1 << 20, 'a');
  EXPECT_EQ(Encode(*model, piece), std::vector<int32_t>(piece.size() / 4, 260));
}

TEST(BytePairModel, BytesAndIdsReadBack) {
  const auto model = ModelWith(kMerges);
  EXPECT_EQ(model->Bytes(258), "aab");
  EXPECT_EQ(model->Find("aab"), 258);
  EXPECT_EQ(model->Bytes(-1), "");
  EXPECT_EQ(model->Bytes(model->size()), "");
  EXPECT_EQ(model->Find("zz"), std::nullopt);
}

void ExpectRefused(const TokenizerSpec& spec, const std::string& message) {
  const auto model = BytePairModel::Create(spec);
  ASSERT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(model.status().message()), HasSubstr(message));
}

TEST(BytePairModel, RefusesAVocabularyThatContradictsItself) {
  TokenizerSpec spec = SpecWith({});
  spec.vocabulary.push_back({"aa", 7});
  ExpectRefused(spec, "under id 7");
  spec.vocabulary.back() = {"a", 256};
  ExpectRefused(spec, "`a` twice");
}

TEST(BytePairModel, RefusesAVocabularyWithoutAByte) {
  TokenizerSpec spec = SpecWith({});
  spec.vocabulary.pop_back();
  ExpectRefused(spec, "byte 0xff");
}

TEST(BytePairModel, RefusesMergesOutsideTheVocabulary) {
  TokenizerSpec spec = SpecWith({{"a", "b"}});
  spec.merges.emplace_back("ab", "c");
  ExpectRefused(spec, "merge 1");
}

}  // namespace
}  // namespace tessera::model
