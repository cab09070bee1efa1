// UTF-8 as Unicode defines it (Unicode 15, table 3-7): where characters end and which
// bytes form none. Ill-formed text is cut into maximal subparts, each of which stands for
// one U+FFFD, as lossy decoders do. Sits below the tokenizer; knows nothing of tokens.
#ifndef TESSERA_MODEL_TOKENIZER_UTF8_H_
#define TESSERA_MODEL_TOKENIZER_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tessera::model {

// U+FFFD in UTF-8.
inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

enum class Utf8Kind {
  kCharacter,  // one well-formed character
  kIllFormed,  // a maximal subpart that more bytes cannot complete
  kTruncated,  // the text ends inside a character that more bytes may complete
};

struct Utf8Step {
  size_t num_bytes = 0;  // 1..4
  Utf8Kind kind = Utf8Kind::kCharacter;
};

// The first character, or ill-formed subpart, of `text`, which must not be empty.
Utf8Step NextUtf8(std::string_view text);

// Length of the longest well-formed prefix of `text`; text.size() if all of it is well
// formed.
size_t WellFormedPrefix(std::string_view text);

// `text` with U+FFFD in place of each ill-formed subpart, a truncated end included.
// Well-formed text comes back unchanged.
std::string ReplaceIllFormed(std::string_view text);

// Moves what is decided out of `pending` and appends it to `text`: whole characters, and
// U+FFFD for ill-formed subparts. A truncated character at the end stays in `pending` (at
// most 3 bytes).
void DrainDecided(std::string* pending, std::string* text);

// Appends the UTF-8 form of `code_point`, which must be a scalar value (no surrogate, <=
// U+10FFFF).
void AppendUtf8(uint32_t code_point, std::string* text);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_TOKENIZER_UTF8_H_
