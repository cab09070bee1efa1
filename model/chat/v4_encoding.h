// The chat encodings of V4 and V4.1: one encoder for the generations V4, V4-0731 and V4.1
// (encoding_generation.h), as DeepSeek's encoding_dsv4.py and its successors.
#ifndef TESSERA_MODEL_CHAT_V4_ENCODING_H_
#define TESSERA_MODEL_CHAT_V4_ENCODING_H_

#include <memory>

#include "absl/status/statusor.h"

#include "model/chat/chat_encoding.h"
#include "model/chat/encoding_generation.h"
#include "model/tokenizer/tokenizer.h"

namespace tessera::model {

// The encoding of `generation`; immutable, thread-safe. `generation` and `tokenizer` must
// outlive it. kInvalidArgument if the tokenizer has no single id for a control token that
// the encoding writes.
absl::StatusOr<std::unique_ptr<ChatEncoding>> CreateV4Encoding(
    const EncodingGeneration& generation, const Tokenizer* tokenizer);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CHAT_V4_ENCODING_H_
