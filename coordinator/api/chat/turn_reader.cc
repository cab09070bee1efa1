#include "coordinator/api/chat/turn_reader.h"

#include <utility>

namespace tessera::coordinator {

TurnReader::TurnReader(const ApiContext* context, std::string_view call_prefix,
                       bool thinking)
    : ids_(context->ids),
      call_prefix_(call_prefix),
      parser_(context->chat->NewTurnParser(thinking)),
      in_reasoning_(thinking) {}

TurnReader::Delta TurnReader::Token(const TokenEvent& event) {
  if (in_reasoning_) {
    ++reasoning_tokens_;
  }
  return Take(parser_->Push(event.text));
}

TurnReader::Delta TurnReader::Rest(const ChoiceFinished& event) {
  return event.text.empty() ? Delta() : Take(parser_->Push(event.text));
}

TurnReader::Delta TurnReader::Finish() { return Take(parser_->Finish()); }

TurnReader::Delta TurnReader::Take(Delta delta) {
  if (!delta.content.empty() || !delta.tool_calls.empty()) {
    in_reasoning_ = false;
  }
  for (model::ToolCall& call : delta.tool_calls) {
    call.id = ids_->NextId(call_prefix_);
  }
  return delta;
}

}  // namespace tessera::coordinator
