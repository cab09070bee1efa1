// Token compression: raw token ids to compressed ids, the first step of Engram's hash.
// Tokens whose texts are alike but for case, accents, compatibility forms and space share
// one compressed id (`The`, ` the` and `THE` hash alike). A checkpoint ships the map as
// the tensor engram.compressed_ids, and serving uses that one; this file builds it for a
// checkpoint that is being made, and checks the one that came. It holds no hash constants
// (engram_hash.h).
//
// Every multiplier derives from the number of compressed ids, so a map that is wrong in
// one place is wrong everywhere. The Unicode tables are utf8proc's; a map made with
// another version of Unicode may differ for characters that are new in one of them.
#ifndef TESSERA_ENGRAM_STORE_HASHING_TOKEN_COMPRESSION_H_
#define TESSERA_ENGRAM_STORE_HASHING_TOKEN_COMPRESSION_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

#include "model/tokenizer/tokenizer.h"

namespace tessera::engram_store {

// The text under which tokens are taken for alike: compatibility decomposition, no
// marks (accents, vowel signs), lower case, runs of space, tab and line ends as one
// space, no whitespace at the ends; text of nothing but such a run stays one space. Empty
// where nothing is left. `text` must be well-formed UTF-8.
std::string NormalizedTokenText(std::string_view text);

// One compressed id per raw id 0 .. tokenizer.size() - 1, numbered by first sight. A
// token that is no text by itself (part of a character) is alike only to itself. Takes
// about 50 ms for 129,280 tokens.
std::vector<int32_t> CompressTokenIds(const model::Tokenizer& tokenizer);

// Whether `compressed_ids` is what CompressTokenIds gives. kInvalidArgument: another
// number of ids. kDataLoss: the message counts the raw ids that are grouped otherwise and
// names the first ones; ids that are merely renumbered because of an earlier difference
// are not counted.
absl::Status VerifyCompressedIds(const model::Tokenizer& tokenizer,
                                 std::span<const int32_t> compressed_ids);

// The raw ids that `actual` puts into another group than `expected` does, walking both
// from id 0, in ascending order. Both must have one size (checked). Empty if the maps are
// equal up to numbering.
std::vector<int32_t> RawIdsGroupedOtherwise(std::span<const int32_t> expected,
                                            std::span<const int32_t> actual);

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_HASHING_TOKEN_COMPRESSION_H_
