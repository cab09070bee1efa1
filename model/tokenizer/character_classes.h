// CharacterClasses: which of the classes that DeepSeek's pre-tokenizer tells apart a
// character belongs to, by a table over all of Unicode. The table is read off PCRE2, so
// that it says what the regular expressions say, whatever Unicode version they know.
#ifndef TESSERA_MODEL_TOKENIZER_CHARACTER_CLASSES_H_
#define TESSERA_MODEL_TOKENIZER_CHARACTER_CLASSES_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

namespace tessera::model {

// A class in the low bits, and flags beside it.
enum CharacterClass : uint8_t {
  kOtherCharacter = 0,
  kWordCharacter = 1,    // \p{L} and \p{M}
  kNumberCharacter = 2,  // \p{N}
  kPunctuation = 3,      // \p{P} and \p{S}
  kNewline = 4,          // CR and LF
  kWhiteSpace = 5,       // White_Space but for CR and LF
  kClassMask = 7,
  // The ideographs and kana that are cut off as runs of their own.
  kCjkFlag = 8,
  kAsciiLetterFlag = 16,
  kAsciiPunctuationFlag = 32,
};

// Immutable; thread-safe.
class CharacterClasses {
 public:
  // Null if PCRE2 cannot compile or run the expressions that tell the classes apart.
  // Takes about 10 ms.
  static std::unique_ptr<const CharacterClasses> Create();

  uint8_t OfAscii(uint8_t byte) const { return table_[byte]; }

  // Class of the character at `text[at]`, which is well-formed UTF-8, and how many bytes
  // it has.
  uint8_t At(std::string_view text, size_t at, size_t* num_bytes) const;

 private:
  explicit CharacterClasses(std::vector<uint8_t> table) : table_(std::move(table)) {}

  std::vector<uint8_t> table_;  // by code point
};

}  // namespace tessera::model

#endif  // TESSERA_MODEL_TOKENIZER_CHARACTER_CLASSES_H_
