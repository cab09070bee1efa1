#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/tokenizer/character_classes.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <pcre2.h>

#include "model/tokenizer/utf8.h"

namespace tessera::model {
namespace {

constexpr uint32_t kNumCodePoints = 0x110000;

// White_Space, as SpellOutWhitespace says it.
constexpr uint32_t kWhiteSpaces[] = {
    0x9,    0xA,    0xB,    0xC,    0xD,    0x20,   0x85,   0xA0,   0x1680,
    0x2000, 0x2001, 0x2002, 0x2003, 0x2004, 0x2005, 0x2006, 0x2007, 0x2008,
    0x2009, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000};

struct CodeDeleter {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct MatchDeleter {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};

// The character at `text[at]`.
uint32_t CodePointAt(std::string_view text, size_t at, size_t* num_bytes) {
  const auto byte = [text, at](size_t i) {
    return static_cast<uint32_t>(static_cast<uint8_t>(text[at + i]));
  };
  const uint32_t lead = byte(0);
  if (lead < 0x80) {
    *num_bytes = 1;
    return lead;
  }
  if (lead < 0xE0) {
    *num_bytes = 2;
    return (lead & 0x1F) << 6 | (byte(1) & 0x3F);
  }
  if (lead < 0xF0) {
    *num_bytes = 3;
    return (lead & 0xF) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
  }
  *num_bytes = 4;
  return (lead & 7) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 |
         (byte(3) & 0x3F);
}

// Sets the class `value` of every character that `expression`, one class of characters
// repeated, matches. False if PCRE2 cannot.
bool Mark(const std::string& all, const std::string& expression, uint8_t value,
          std::vector<uint8_t>* table) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  const std::unique_ptr<pcre2_code, CodeDeleter> code(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
                    PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr));
  if (code == nullptr) {
    return false;
  }
  // Without a JIT the interpreter gives the same matches.
  (void)pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  const std::unique_ptr<pcre2_match_data, MatchDeleter> match(
      pcre2_match_data_create(1, nullptr));
  size_t at = 0;
  while (at < all.size()) {
    const int rc = pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(all.data()),
                               all.size(), at, PCRE2_NO_UTF_CHECK, match.get(), nullptr);
    if (rc == PCRE2_ERROR_NOMATCH) {
      return true;
    }
    if (rc < 0) {
      return false;
    }
    const PCRE2_SIZE* const bounds = pcre2_get_ovector_pointer(match.get());
    size_t num_bytes = 0;
    for (at = bounds[0]; at < bounds[1]; at += num_bytes) {
      uint8_t& entry = (*table)[CodePointAt(all, at, &num_bytes)];
      entry = static_cast<uint8_t>(entry | value);
    }
  }
  return true;
}

void SetFlag(uint32_t first, uint32_t last, uint8_t flag, std::vector<uint8_t>* table) {
  for (uint32_t code_point = first; code_point <= last; ++code_point) {
    (*table)[code_point] = static_cast<uint8_t>((*table)[code_point] | flag);
  }
}

}  // namespace

std::unique_ptr<const CharacterClasses> CharacterClasses::Create() {
  std::string all;
  all.reserve(size_t{4} * kNumCodePoints);
  for (uint32_t code_point = 0; code_point < kNumCodePoints; ++code_point) {
    if (code_point < 0xD800 || code_point > 0xDFFF) {
      AppendUtf8(code_point, &all);
    }
  }
  std::vector<uint8_t> table(kNumCodePoints, kOtherCharacter);
  const bool known = Mark(all, R"([\p{L}\p{M}]+)", kWordCharacter, &table) &&
                     Mark(all, R"(\p{N}+)", kNumberCharacter, &table) &&
                     Mark(all, R"([\p{P}\p{S}]+)", kPunctuation, &table);
  if (!known) {
    return nullptr;
  }
  // What the expressions name by its characters.
  for (const uint32_t blank : kWhiteSpaces) {
    table[blank] = kWhiteSpace;
  }
  table['\r'] = table['\n'] = kNewline;
  SetFlag(0x4E00, 0x9FA5, kCjkFlag, &table);  // 一-龥
  SetFlag(0x3040, 0x30FF, kCjkFlag, &table);  // ぀-ゟ゠-ヿ
  SetFlag('A', 'Z', kAsciiLetterFlag, &table);
  SetFlag('a', 'z', kAsciiLetterFlag, &table);
  for (uint32_t byte = '!'; byte <= '~'; ++byte) {
    if (table[byte] == kPunctuation) {
      SetFlag(byte, byte, kAsciiPunctuationFlag, &table);
    }
  }
  return std::unique_ptr<const CharacterClasses>(new CharacterClasses(std::move(table)));
}

uint8_t CharacterClasses::At(std::string_view text, size_t at, size_t* num_bytes) const {
  return table_[CodePointAt(text, at, num_bytes)];
}

}  // namespace tessera::model
