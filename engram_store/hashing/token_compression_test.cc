#include "engram_store/hashing/token_compression.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include <utf8proc.h>

#include "common/status.h"
#include "engram_store/table/sha256.h"
#include "model/tensors/checkpoint.h"
#include "tests/testing/status_matchers.h"

namespace tessera::engram_store {
namespace {

using ::tessera::testing::IsOk;
using ::tessera::testing::StatusIs;

std::vector<int32_t> Ints(const model::TensorRef& tensor) {
  std::vector<int32_t> values(static_cast<size_t>(tensor.num_elements()));
  EXPECT_EQ(tensor.data.size(), values.size() * sizeof(int32_t));
  std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
  return values;
}

int32_t NumGroups(const std::vector<int32_t>& ids) {
  return 1 + *std::ranges::max_element(ids);
}

TEST(NormalizedTokenText, IgnoresCaseAccentsFormsAndSpace) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"The", "the"},
      {" THE", "the"},
      {"caf\u00E9", "cafe"},
      {"cafe\u0301", "cafe"},
      {"\uFF34\uFF28\uFF25", "the"},     // full width
      {"\uFB01", "fi"},                  // ligature
      {"\u0130", "i"},                   // the dot is a mark once decomposed
      {"\u03A3\u03A3", "\u03C3\u03C3"},  // no final sigma
      {"\u1E9E", "\u00DF"},              // capital sharp s
      {"\u0915\u093F", "\u0915"},        // a vowel sign is a mark (Mc)
      {"1\u20E3", "1"},                  // as is an enclosing circle (Me)
      {"a\t\r\n b", "a b"},
      {"a\u00A0b", "a b"},     // the compatibility form of NBSP is a space
      {"\u2028a\u0085", "a"},  // stripped, though not in a run of spaces
      {"a\u000B\u000Bb", "a\u000B\u000Bb"},
      {"\uD55C", "\u1112\u1161\u11AB"},  // stays decomposed
      {"\uE000a", " a"},                 // the sentinel wherever it comes from
      {" \u000B", ""},
      {"\u001C", "\u001C"},  // no White_Space
      {"\u0301", ""},
      {"", ""},
  };
  for (const auto& [text, expected] : cases) {
    EXPECT_EQ(NormalizedTokenText(text), expected) << text;
  }
}

TEST(NormalizedTokenText, ARunOfBlanksAloneIsOneSpace) {
  for (const char* text : {" ", "    ", "\n", "\r\n\t ", "\u00A0", "\u3000"}) {
    EXPECT_EQ(NormalizedTokenText(text), " ");
  }
}

TEST(NormalizedTokenText, ExpandsBeyondTheLengthOfTheText) {
  // The longest compatibility decomposition, 18 characters from 3 bytes.
  std::string expected =
      "\u0635\u0644\u0649 \u0627\u0644\u0644\u0647 \u0639\u0644\u064A"
      "\u0647 \u0648\u0633\u0644\u0645";
  EXPECT_EQ(NormalizedTokenText("\uFDFA"), expected);
}

TEST(CompressTokenIds, GivesTheMapOfTheDemoModel) {
  const auto tokenizer = model::Tokenizer::Load("models/demo").value();
  const auto checkpoint = model::Checkpoint::Open("models/demo").value();
  const std::vector<int32_t> ids = CompressTokenIds(*tokenizer);
  EXPECT_EQ(ids, Ints(checkpoint->Find("engram.compressed_ids").value()));
  EXPECT_EQ(NumGroups(ids), 3076);
}

// DeepSeek's published map for the V4 tokenizer, from which every hash constant of V4.1
// derives.
class PublishedMap : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    tokenizer_ = model::Tokenizer::Load("tests/data/tokenizer").value().release();
    const auto file = model::Checkpoint::OpenFile(
                          "tests/data/tokenizer/engram_compressed_ids.safetensors")
                          .value();
    map_ = new std::vector<int32_t>(Ints(file->Find(file->names().at(0)).value()));
  }
  static void TearDownTestSuite() {
    delete std::exchange(tokenizer_, nullptr);
    delete std::exchange(map_, nullptr);
  }

  static const model::Tokenizer* tokenizer_;
  static const std::vector<int32_t>* map_;
};
const model::Tokenizer* PublishedMap::tokenizer_ = nullptr;
const std::vector<int32_t>* PublishedMap::map_ = nullptr;

TEST_F(PublishedMap, IsReproducedExactly) {
  const std::vector<int32_t> ids = CompressTokenIds(*tokenizer_);
  ASSERT_EQ(ids.size(), 129280u);
  EXPECT_EQ(NumGroups(ids), 99092);
  for (const int32_t id : RawIdsGroupedOtherwise(*map_, ids)) {
    ADD_FAILURE() << "id " << id << " `" << tokenizer_->TokenBytes(id)
                  << "`: " << ids[static_cast<size_t>(id)] << ", published "
                  << (*map_)[static_cast<size_t>(id)] << ", Unicode "
                  << utf8proc_unicode_version();
  }
  static_assert(std::endian::native == std::endian::little);
  EXPECT_EQ(ToHex(Sha256::Of(std::as_bytes(std::span(ids)))),
            "c60a86322ec17b4142bfef3c57a8d81fb428550cdf487f88a4320cb59fe46481");
}

TEST_F(PublishedMap, MergesTokensThatDifferInCaseAndSpace) {
  const auto compressed = [](const char* token) {
    return map_->at(static_cast<size_t>(tokenizer_->TokenId(token).value()));
  };
  EXPECT_EQ(compressed("the"), compressed(" The"));
  EXPECT_EQ(compressed("the"), compressed("THE"));
  EXPECT_NE(compressed("the"), compressed("then"));
}

TEST_F(PublishedMap, VerifyNamesTheTokensThatDiffer) {
  EXPECT_THAT(VerifyCompressedIds(*tokenizer_, *map_), IsOk());
  EXPECT_THAT(VerifyCompressedIds(*tokenizer_, std::span(*map_).first(5)),
              StatusIs(absl::StatusCode::kInvalidArgument));

  std::vector<int32_t> wrong = *map_;
  const size_t the = static_cast<size_t>(tokenizer_->TokenId(" The").value());
  const size_t number = static_cast<size_t>(wrong[the]);
  wrong[the] = 99092;
  const absl::Status status = VerifyCompressedIds(*tokenizer_, wrong);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_NE(status.message().find("of 1 tokens"), absl::string_view::npos) << status;
  EXPECT_NE(status.message().find(
                fmt::format("{} (compressed 99092, expected {})", the, number)),
            absl::string_view::npos)
      << status;
}

TEST(RawIdsGroupedOtherwise, DoesNotCountWhatIsMerelyRenumbered) {
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(RawIdsGroupedOtherwise(Ids{0, 1, 1, 2}, Ids{0, 1, 1, 2}), Ids{});
  EXPECT_EQ(RawIdsGroupedOtherwise(Ids{0, 1, 1, 2}, Ids{5, 0, 0, 1}), Ids{});
  // One group cut in two, all later numbers shifted.
  EXPECT_EQ(RawIdsGroupedOtherwise(Ids{0, 1, 1, 2, 3}, Ids{0, 1, 2, 3, 4}), Ids{2});
  // The first of a group astray: the others are still one group.
  EXPECT_EQ(RawIdsGroupedOtherwise(Ids{0, 1, 1, 1}, Ids{0, 0, 1, 1}), Ids{1});
  // Two groups in one.
  EXPECT_EQ(RawIdsGroupedOtherwise(Ids{0, 1, 2, 0}, Ids{0, 1, 1, 0}), Ids{2});
}

}  // namespace
}  // namespace tessera::engram_store
