// The byte alphabet of byte-level BPE: tokenizer.json spells each byte of a token as one
// printable character (GPT-2's table; bytes that are printable Latin-1 spell themselves,
// the others become U+0100 and up in order). Used while loading only; at run time tokens
// are plain bytes.
#ifndef TESSERA_MODEL_TOKENIZER_BYTE_ALPHABET_H_
#define TESSERA_MODEL_TOKENIZER_BYTE_ALPHABET_H_

#include <optional>
#include <string>
#include <string_view>

namespace tessera::model {

// The bytes that `spelled` (UTF-8) stands for; none if a character is outside the
// alphabet, as in control tokens that are listed in the vocabulary as they are.
std::optional<std::string> BytesOfSpelling(std::string_view spelled);

// The spelling of `bytes`; inverse of BytesOfSpelling.
std::string SpellBytes(std::string_view bytes);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_TOKENIZER_BYTE_ALPHABET_H_
