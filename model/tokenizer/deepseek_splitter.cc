// The third expression, whose alternatives have the numbers below:
//
//   1  [!"#$…~][A-Za-z]+              4  \s*[\r\n]+
//   2  [^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+
//   3   ?[\p{P}\p{S}]+[\r\n]*         5  \s+(?!\S)        6  \s+
//
// The first cuts numbers off in groups of three, the second runs of ideographs and kana.
// What is left between them are texts of their own to the third: whether a character
// belongs to the present one is told by its class and kCjkFlag alone. Alternatives do not
// look at numbers, which it therefore never meets.
#include "model/tokenizer/deepseek_splitter.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/tokenizer/character_classes.h"

namespace tessera::model {
namespace {

constexpr size_t kNumberGroup = 3;  // digits of a piece
constexpr uint8_t kKindMask = kClassMask | kCjkFlag;

uint8_t KindOf(uint8_t found) { return static_cast<uint8_t>(found & kKindMask); }

bool IsBlank(uint8_t kind) { return kind == kWhiteSpace || kind == kNewline; }

}  // namespace

const std::vector<std::string>& DeepSeekSplitter::Patterns() {
  static const auto& patterns = *new std::vector<std::string>{
      R"(\p{N}{1,3})", "[一-龥぀-ゟ゠-ヿ]+",
      R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^)"
      "\r\n"
      R"(\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[)"
      "\r\n"
      R"(]*|\s*[)"
      "\r\n"
      R"(]+|\s+(?!\S)|\s+)"};
  return patterns;
}

std::unique_ptr<const DeepSeekSplitter> DeepSeekSplitter::Create() {
  std::unique_ptr<const CharacterClasses> classes = CharacterClasses::Create();
  if (classes == nullptr) {
    return nullptr;
  }
  return std::unique_ptr<const DeepSeekSplitter>(
      new DeepSeekSplitter(std::move(classes)));
}

// Behind the characters of one kind from `at` on.
size_t DeepSeekSplitter::RunEnd(std::string_view text, size_t at, uint8_t kind) const {
  size_t num_bytes = 0;
  while (at < text.size() && KindOf(At(text, at, &num_bytes)) == kind) {
    at += num_bytes;
  }
  return at;
}

size_t DeepSeekSplitter::NumberEnd(std::string_view text, size_t at) const {
  size_t num_bytes = 0;
  for (size_t i = 0; i < kNumberGroup && at < text.size() &&
                     (At(text, at, &num_bytes) & kClassMask) == kNumberCharacter;
       ++i) {
    at += num_bytes;
  }
  return at;
}

// Alternatives 4 to 6, at a blank: up to the last line end among the blanks, or all of
// them, but for the last where more text follows and it is not the only one.
size_t DeepSeekSplitter::BlankEnd(std::string_view text, size_t at) const {
  size_t behind_newline = 0;
  size_t last = at;
  size_t end = at;
  while (end < text.size()) {
    size_t num_bytes = 0;
    const uint8_t kind = KindOf(At(text, end, &num_bytes));
    if (!IsBlank(kind)) {
      break;
    }
    last = end;
    end += num_bytes;
    if (kind == kNewline) {
      behind_newline = end;
    }
  }
  if (behind_newline > 0) {
    return behind_newline;
  }
  size_t num_bytes = 0;
  const uint8_t next =
      end < text.size() ? KindOf(At(text, end, &num_bytes)) : uint8_t{kNumberCharacter};
  const bool text_ends = next == kNumberCharacter || (next & kCjkFlag) != 0;
  return text_ends || last == at ? end : last;
}

// Where a match that begins at `at` ends, or `at` if none does.
size_t DeepSeekSplitter::MatchEnd(std::string_view text, size_t at, uint8_t found,
                                  size_t num_bytes) const {
  const uint8_t kind = KindOf(found);
  const auto flag = static_cast<uint8_t>(kind & kCjkFlag);
  const auto word = static_cast<uint8_t>(kWordCharacter | flag);
  const auto punctuation = static_cast<uint8_t>(kPunctuation | flag);
  const size_t second = at + num_bytes;
  if (kind == word) {  // 2
    return RunEnd(text, second, word);
  }
  size_t next_bytes = 0;
  const uint8_t next = second < text.size() ? At(text, second, &next_bytes) : uint8_t{0};
  if ((found & kAsciiPunctuationFlag) != 0 && (next & kAsciiLetterFlag) != 0) {  // 1
    size_t end = second + 1;
    while (end < text.size() && (At(text, end, &next_bytes) & kAsciiLetterFlag) != 0) {
      ++end;
    }
    return end;
  }
  const uint8_t plain = kind & kClassMask;
  if ((plain == kOtherCharacter || plain == kWhiteSpace) && KindOf(next) == word) {  // 2
    return RunEnd(text, second + next_bytes, word);
  }
  const bool behind_space = text[at] == ' ' && KindOf(next) == punctuation;
  if (kind == punctuation || behind_space) {  // 3
    const size_t end = RunEnd(text, second, punctuation);
    return flag == 0 ? RunEnd(text, end, kNewline) : end;
  }
  return IsBlank(kind) ? BlankEnd(text, at) : at;
}

void DeepSeekSplitter::Split(std::string_view text,
                             std::vector<std::string_view>* pieces) const {
  size_t done = 0;  // everything before is in `pieces`
  size_t at = 0;    // what lies between are characters that no match begins with
  uint8_t flag = 0;
  const auto cut = [&](size_t end) {
    if (end > done) {
      pieces->push_back(text.substr(done, end - done));
      done = end;
    }
  };
  while (at < text.size()) {
    size_t num_bytes = 0;
    const uint8_t found = At(text, at, &num_bytes);
    const bool is_number = (found & kClassMask) == kNumberCharacter;
    if (is_number || (found & kCjkFlag) != flag) {
      cut(at);
      flag = found & kCjkFlag;
    }
    const size_t end =
        is_number ? NumberEnd(text, at) : MatchEnd(text, at, found, num_bytes);
    if (end == at) {
      at += num_bytes;
      continue;
    }
    cut(at);
    cut(end);
    at = end;
  }
  cut(at);
}

}  // namespace tessera::model
