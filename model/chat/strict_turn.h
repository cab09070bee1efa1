// The strict reader of whole generated turns of the DSML generations: what a published
// parser accepts, and nothing else. The streaming readers (turn_parser.h,
// call_parser.h) recover where this one refuses.
#ifndef TESSERA_MODEL_CHAT_STRICT_TURN_H_
#define TESSERA_MODEL_CHAT_STRICT_TURN_H_

#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

#include "model/chat/chat_encoding.h"
#include "model/chat/dsml.h"
#include "model/chat/encoding_generation.h"

namespace tessera::model {

// `tags` are those of `generation`. kInvalidArgument says which rule was broken: the
// reasoning has no end, a control token in the reasoning or the content, a malformed tool
// block, text after it, no end of the sentence where the generation wants one.
absl::StatusOr<ParsedTurn> ReadTurn(const EncodingGeneration& generation,
                                    const DsmlTags& tags, std::string_view text,
                                    bool thinking);

// Cuts the reasoning with its </think> off the start of `text`. kInvalidArgument if it
// has no end or spells one of `control_tokens`.
absl::StatusOr<std::string> ReadReasoning(
    std::span<const std::string_view> control_tokens, std::string_view* text);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CHAT_STRICT_TURN_H_
