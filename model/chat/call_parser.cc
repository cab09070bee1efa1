#include "model/chat/call_parser.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>

#include "model/chat/control_tokens.h"

namespace tessera::model {
namespace {

// The tokens that end a call, and what they begin with.
constexpr std::array kCallTokens = {kCallEndToken, kCallBeginToken, kCallsEndToken};
constexpr std::string_view kCallTokenStart = "<｜tool▁call";
constexpr size_t kLongestCallToken =
    std::max({kCallEndToken.size(), kCallBeginToken.size(), kCallsEndToken.size()});

// The first of them from `from` on. One scan, whichever it is, so that many calls in one
// text cost linear time.
size_t FindCallToken(std::string_view text, size_t from) {
  size_t position = text.find(kCallTokenStart, from);
  while (position != std::string_view::npos) {
    for (const std::string_view token : kCallTokens) {
      if (text.substr(position).starts_with(token)) {
        return position;
      }
    }
    position = text.find(kCallTokenStart, position + 1);
  }
  return position;
}

}  // namespace

TurnParser::Delta CallTurnParser::Push(std::string_view text) {
  Delta delta;
  pending_.Append(text);
  while (Step(&delta)) {
  }
  pending_.Compact();
  return delta;
}

TurnParser::Delta CallTurnParser::Finish() {
  Delta delta;
  switch (state_) {
    case State::kProse:
      prose_.Emit(pending_.rest(), &delta);
      break;
    case State::kBetween:
      // A block that was only about to close lost nothing but its closing token.
      if (!any_call_ || !pending_.MayBecome(kCallsEndToken)) {
        GiveUp(&delta);
      }
      break;
    case State::kInCall:
      if (!EmitCall(pending_.rest().size(), /*is_open=*/true, &delta)) {
        GiveUp(&delta);
      }
      break;
    case State::kAfterCalls:
    case State::kVerbatim:
      break;
  }
  pending_ = {};
  state_ = State::kAfterCalls;
  return delta;
}

bool CallTurnParser::Step(Delta* delta) {
  switch (state_) {
    case State::kProse:
      return StepProse(delta);
    case State::kBetween:
      return StepBetween(delta);
    case State::kInCall:
      return StepInCall(delta);
    case State::kAfterCalls:
      pending_.Drop(pending_.rest().size());
      return false;
    case State::kVerbatim:
      prose_.Emit(pending_.rest(), delta);
      pending_.Drop(pending_.rest().size());
      return false;
  }
  return false;
}

bool CallTurnParser::StepProse(Delta* delta) {
  const ProseReader::Step step = prose_.Read(pending_.rest(), delta);
  pending_.Drop(step.num_bytes);
  if (!step.found_block) {
    return false;
  }
  pending_.Consume(kCallsBeginToken.size());
  state_ = State::kBetween;
  return true;
}

bool CallTurnParser::StepBetween(Delta* delta) {
  pending_.SkipWhitespace();
  if (pending_.Take(kCallBeginToken)) {
    num_scanned_ = 0;
    state_ = State::kInCall;
    return true;
  }
  if (any_call_ && pending_.Take(kCallsEndToken)) {
    state_ = State::kAfterCalls;
    return true;
  }
  const bool is_empty_block = pending_.rest().starts_with(kCallsEndToken);
  if (!is_empty_block &&
      (pending_.MayBecome(kCallBeginToken) || pending_.MayBecome(kCallsEndToken))) {
    return false;
  }
  GiveUp(delta);
  return false;
}

bool CallTurnParser::StepInCall(Delta* delta) {
  // A call that the model forgot to close ends where the next begins or the block ends.
  const std::string_view text = pending_.rest();
  const size_t end = FindCallToken(text, num_scanned_);
  if (end == std::string_view::npos) {
    num_scanned_ = text.size() - std::min(text.size(), kLongestCallToken - 1);
    return false;
  }
  if (!EmitCall(end, /*is_open=*/false, delta)) {
    GiveUp(delta);
    return false;
  }
  pending_.Take(kCallEndToken);
  pending_.Keep();
  state_ = State::kBetween;
  return true;
}

bool CallTurnParser::EmitCall(size_t num_bytes, bool is_open, Delta* delta) {
  std::optional<ToolCall> call =
      ReadCallText(*format_, pending_.rest().substr(0, num_bytes), is_open);
  if (!call.has_value()) {
    return false;
  }
  delta->tool_calls.push_back(*std::move(call));
  pending_.Consume(num_bytes);
  any_call_ = true;
  return true;
}

// What was generated since the last call is no tool markup: it comes back as content, and
// so does all that follows.
void CallTurnParser::GiveUp(Delta* delta) {
  state_ = State::kVerbatim;
  prose_.Emit(pending_.GiveBack(), delta);
}

}  // namespace tessera::model
