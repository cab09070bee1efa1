// The chat encodings of V3, R1 and V3.1: one encoder for the chat templates of their
// releases (call_format.h). System messages come first, wherever they stood; a developer
// message counts as one. Efforts, tasks and reminders are unknown. In thinking mode V3.1
// continues directly after tool results, without reasoning, as its template does.
#ifndef TESSERA_MODEL_CHAT_V3_ENCODING_H_
#define TESSERA_MODEL_CHAT_V3_ENCODING_H_

#include <memory>

#include "absl/status/statusor.h"

#include "model/chat/call_format.h"
#include "model/chat/chat_encoding.h"
#include "model/tokenizer/tokenizer.h"

namespace tessera::model {

// The encoding of `format`; immutable, thread-safe. Both must outlive it.
// kInvalidArgument if the tokenizer has no single id for a control token that the
// encoding writes.
absl::StatusOr<std::unique_ptr<ChatEncoding>> CreateV3Encoding(
    const CallFormat& format, const Tokenizer* tokenizer);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CHAT_V3_ENCODING_H_
