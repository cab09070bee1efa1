#include "engram_store/hashing/token_compression.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include <utf8proc.h>

#include "common/check.h"
#include "common/status.h"
#include "model/tokenizer/byte_alphabet.h"
#include "model/tokenizer/utf8.h"

namespace tessera::engram_store {
namespace {

// Stands for a token that is one space while whitespace is stripped from the ends.
constexpr int32_t kSentinel = 0xE000;
constexpr int32_t kCapitalIWithDot = 0x0130;
constexpr int32_t kCombiningDotAbove = 0x0307;
// Raw ids that a message names.
constexpr size_t kMaxNamed = 8;

using CodePoints = std::vector<int32_t>;

// NFKC and then NFD, which together are NFKD: composing changes nothing that decomposing
// does not undo.
CodePoints Decomposed(std::string_view text) {
  constexpr auto kOptions = static_cast<utf8proc_option_t>(
      UTF8PROC_STABLE | UTF8PROC_COMPAT | UTF8PROC_DECOMPOSE);
  static_assert(sizeof(utf8proc_int32_t) == sizeof(int32_t));
  CodePoints points(text.size());
  while (true) {
    const utf8proc_ssize_t count =
        utf8proc_decompose(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                           static_cast<utf8proc_ssize_t>(text.size()), points.data(),
                           static_cast<utf8proc_ssize_t>(points.size()), kOptions);
    TESSERA_CHECK(count >= 0);  // Well-formed UTF-8 always decomposes.
    const bool fitted = static_cast<size_t>(count) <= points.size();
    points.resize(static_cast<size_t>(count));
    if (fitted) {
      return points;
    }
  }
}

// Of whatever kind: vowel signs (Mc) and enclosing marks (Me) are stripped like accents
// (Mn), or the published maps do not come out.
bool IsMark(int32_t point) {
  const utf8proc_category_t category = utf8proc_category(point);
  return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
         category == UTF8PROC_CATEGORY_ME;
}

// Character by character, as the tokenizers library does: a final sigma is like any
// other. U+0130 is the one character whose lower case is two.
CodePoints WithoutMarksInLowerCase(const CodePoints& points) {
  CodePoints lower;
  for (const int32_t point : points) {
    if (IsMark(point)) {
      continue;
    }
    if (point == kCapitalIWithDot) {
      lower.insert(lower.end(), {'i', kCombiningDotAbove});
    } else {
      lower.push_back(utf8proc_tolower(point));
    }
  }
  return lower;
}

bool IsBlank(int32_t point) {
  return point == ' ' || point == '\t' || point == '\r' || point == '\n';
}

// The property White_Space, which has not changed since Unicode 6.3.
bool IsWhitespace(int32_t point) {
  return (point >= 0x09 && point <= 0x0D) || point == 0x20 || point == 0x85 ||
         point == 0xA0 || point == 0x1680 || (point >= 0x2000 && point <= 0x200A) ||
         point == 0x2028 || point == 0x2029 || point == 0x202F || point == 0x205F ||
         point == 0x3000;
}

CodePoints WithBlankRunsAsSpaces(const CodePoints& points) {
  CodePoints result;
  bool in_run = false;
  for (const int32_t point : points) {
    const bool blank = IsBlank(point);
    if (!blank) {
      result.push_back(point);
    } else if (!in_run) {
      result.push_back(' ');
    }
    in_run = blank;
  }
  return result;
}

std::span<const int32_t> Stripped(std::span<const int32_t> points) {
  while (!points.empty() && IsWhitespace(points.front())) {
    points = points.subspan(1);
  }
  while (!points.empty() && IsWhitespace(points.back())) {
    points = points.first(points.size() - 1);
  }
  return points;
}

// What tokens that are alike have in common. Texts and spellings of partial characters
// are keys of one map, as in the code that made the published maps.
std::string KeyOf(std::string_view bytes) {
  const std::string text = model::ReplaceIllFormed(bytes);
  if (text.find(model::kReplacementCharacter) != std::string::npos) {
    return model::SpellBytes(bytes);
  }
  std::string normalized = NormalizedTokenText(text);
  return normalized.empty() ? text : normalized;
}

}  // namespace

std::string NormalizedTokenText(std::string_view text) {
  CodePoints points = WithBlankRunsAsSpaces(WithoutMarksInLowerCase(Decomposed(text)));
  if (points == CodePoints{' '}) {
    points = {kSentinel};
  }
  std::string normalized;
  for (const int32_t point : Stripped(points)) {
    model::AppendUtf8(point == kSentinel ? ' ' : static_cast<uint32_t>(point),
                      &normalized);
  }
  return normalized;
}

std::vector<int32_t> CompressTokenIds(const model::Tokenizer& tokenizer) {
  absl::flat_hash_map<std::string, int32_t> id_of_key;
  std::vector<int32_t> compressed_ids;
  compressed_ids.reserve(static_cast<size_t>(tokenizer.size()));
  for (int32_t id = 0; id < tokenizer.size(); ++id) {
    const int32_t next = static_cast<int32_t>(id_of_key.size());
    const auto [it, is_new] =
        id_of_key.try_emplace(KeyOf(tokenizer.TokenBytes(id)), next);
    compressed_ids.push_back(it->second);
  }
  return compressed_ids;
}

std::vector<int32_t> RawIdsGroupedOtherwise(std::span<const int32_t> expected,
                                            std::span<const int32_t> actual) {
  TESSERA_CHECK_EQ(expected.size(), actual.size());
  // Groups are paired at the first raw id that is new in both; an id that pairs a new
  // group with a known one differs, and leaves the new one for the next.
  absl::flat_hash_map<int32_t, int32_t> actual_of_expected;
  absl::flat_hash_map<int32_t, int32_t> expected_of_actual;
  std::vector<int32_t> differing;
  for (size_t id = 0; id < expected.size(); ++id) {
    const auto to_actual = actual_of_expected.find(expected[id]);
    const bool new_expected = to_actual == actual_of_expected.end();
    const bool new_actual = !expected_of_actual.contains(actual[id]);
    if (new_expected && new_actual) {
      actual_of_expected.emplace(expected[id], actual[id]);
      expected_of_actual.emplace(actual[id], expected[id]);
    } else if (new_expected || to_actual->second != actual[id]) {
      differing.push_back(static_cast<int32_t>(id));
    }
  }
  return differing;
}

absl::Status VerifyCompressedIds(const model::Tokenizer& tokenizer,
                                 std::span<const int32_t> compressed_ids) {
  if (compressed_ids.size() != static_cast<size_t>(tokenizer.size())) {
    return InvalidArgumentF("{} compressed ids, expected {}, one per token",
                            compressed_ids.size(), tokenizer.size());
  }
  const std::vector<int32_t> expected = CompressTokenIds(tokenizer);
  if (std::ranges::equal(expected, compressed_ids)) {
    return absl::OkStatus();
  }
  const std::vector<int32_t> differing = RawIdsGroupedOtherwise(expected, compressed_ids);
  if (differing.empty()) {
    return DataLossF("compressed ids are not numbered in the order of the raw ids");
  }
  std::string named;
  for (size_t i = 0; i < std::min(differing.size(), kMaxNamed); ++i) {
    const size_t id = static_cast<size_t>(differing[i]);
    named += fmt::format("{}{} (compressed {}, expected {})", i == 0 ? "" : ", ", id,
                         compressed_ids[id], expected[id]);
  }
  return DataLossF(
      "compressed ids of {} tokens differ from those of the tokenizer under Unicode {}: "
      "{}",
      differing.size(), utf8proc_unicode_version(), named);
}

}  // namespace tessera::engram_store
