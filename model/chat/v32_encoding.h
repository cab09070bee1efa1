// The chat encoding of V3.2, as DeepSeek's encoding_dsv32.py: each user message opens the
// assistant's turn itself, and tool results are a group that follows the turn of their
// calls, in the order of the messages. It knows neither tasks, reminders nor efforts.
#ifndef TESSERA_MODEL_CHAT_V32_ENCODING_H_
#define TESSERA_MODEL_CHAT_V32_ENCODING_H_

#include <memory>

#include "absl/status/statusor.h"

#include "model/chat/chat_encoding.h"
#include "model/chat/encoding_generation.h"
#include "model/tokenizer/tokenizer.h"

namespace tessera::model {

// The encoding of `generation` (kV32); immutable, thread-safe. Both must outlive it.
// kInvalidArgument if the tokenizer has no single id for a control token that the
// encoding writes. The DSML mark is one only where the tokenizer has it.
absl::StatusOr<std::unique_ptr<ChatEncoding>> CreateV32Encoding(
    const EncodingGeneration& generation, const Tokenizer* tokenizer);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CHAT_V32_ENCODING_H_
