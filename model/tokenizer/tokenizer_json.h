// tokenizer.json (the HF tokenizers format, version 1.0) as plain data, checked to be of
// the one kind that Tessera runs: byte-level BPE behind regular-expression splits. Parsed
// as a stream, since the vocabulary and the merges are nearly all of a file of several MB
// and a process start waits for it.
#ifndef TESSERA_MODEL_TOKENIZER_TOKENIZER_JSON_H_
#define TESSERA_MODEL_TOKENIZER_TOKENIZER_JSON_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "model/tokenizer/added_tokens.h"

namespace tessera::model {

// Larger ids are refused: tables are indexed by id.
inline constexpr int64_t kMaxTokenId = (int64_t{1} << 22) - 1;

// Strings are as in the file: spelled in the byte alphabet (byte_alphabet.h).
struct VocabularyEntry {
  std::string spelling;
  int32_t id = 0;
};

struct TokenizerSpec {
  std::vector<std::string> split_patterns;  // applied in this order
  std::vector<VocabularyEntry> vocabulary;
  std::vector<std::pair<std::string, std::string>> merges;  // by falling priority
  std::vector<AddedToken> added_tokens;
};

// kInvalidArgument: not JSON, a wrong type, or a component that is not supported; the
// message names it. Accepted: model BPE without dropout, unknown token, affixes, byte
// fallback or ignore_merges; no normalizer; pre-tokenizer Sequence of Split (isolated
// regular expressions) and a ByteLevel without prefix space and regular expression;
// decoder ByteLevel; no post-processor that adds tokens.
absl::StatusOr<TokenizerSpec> ParseTokenizerJson(std::string_view json);

// Takes over the `special` flags of `added_tokens_decoder` in tokenizer_config.json,
// which is what decides where a checkpoint has both files. kInvalidArgument if the file
// contradicts `spec`.
absl::Status ApplyTokenizerConfig(std::string_view json, TokenizerSpec* spec);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_TOKENIZER_TOKENIZER_JSON_H_
