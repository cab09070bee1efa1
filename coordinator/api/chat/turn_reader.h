// TurnReader: the generated text of one choice as reasoning, content and tool calls, with
// what every chat dialect wants to know beside the text: ids of calls and how many tokens
// were reasoning. It writes no JSON.
#ifndef TESSERA_COORDINATOR_API_CHAT_TURN_READER_H_
#define TESSERA_COORDINATOR_API_CHAT_TURN_READER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "coordinator/api/api_context.h"
#include "coordinator/requests/engine.h"
#include "model/chat/chat_encoding.h"

namespace tessera::coordinator {

// One per choice; external synchronisation. Movable.
class TurnReader {
 public:
  using Delta = model::TurnParser::Delta;

  // `call_prefix` begins the ids of tool calls ("call_"). `thinking`: the prompt ended
  // inside the reasoning. `context` must outlive the reader.
  TurnReader(const ApiContext* context, std::string_view call_prefix, bool thinking);

  // What became certain with this token. Its calls have their ids.
  Delta Token(const TokenEvent& event);

  // What the engine held back until the end (ChoiceFinished::text), then, once, what the
  // parser did. Two steps, because the parts of one delta have no order among each other.
  Delta Rest(const ChoiceFinished& event);
  Delta Finish();

  // No content and no call was seen yet in a turn that began with reasoning.
  bool in_reasoning() const { return in_reasoning_; }
  // Tokens up to the first content or call, the tag that ends the reasoning included.
  int64_t reasoning_tokens() const { return reasoning_tokens_; }

 private:
  Delta Take(Delta delta);

  RequestIds* ids_;
  std::string call_prefix_;
  std::unique_ptr<model::TurnParser> parser_;
  bool in_reasoning_;
  int64_t reasoning_tokens_ = 0;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_CHAT_TURN_READER_H_
