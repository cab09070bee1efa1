#include "model/chat/turn_parser.h"

#include <algorithm>
#include <array>
#include <utility>

namespace tessera::model {
namespace {

// Longer names of tools and parameters are malformed: the end of a tag is waited for no
// further.
constexpr size_t kMaxNameBytes = 1024;

}  // namespace

TurnParser::Delta DsmlTurnParser::Push(std::string_view text) {
  Delta delta;
  pending_.Append(text);
  while (Step(&delta)) {
  }
  pending_.Compact();
  return delta;
}

TurnParser::Delta DsmlTurnParser::Finish() {
  Delta delta;
  switch (state_) {
    case State::kProse:
      prose_.Emit(rest(), &delta);
      break;
    case State::kBetween:
      // A block that was only about to close lost nothing but its closing tag.
      if (!any_call_ || !pending_.MayBecome(tags_->calls_close)) {
        GiveUp(&delta);
      }
      break;
    case State::kInValue:
      AppendArgument(key_, rest(), is_string_, /*is_open=*/true, &call_.arguments);
      EmitCall(&delta);
      break;
    case State::kInCall:
      EmitCall(&delta);
      break;
    case State::kAfterCalls:
    case State::kVerbatim:
      break;
  }
  pending_ = {};
  state_ = State::kAfterCalls;
  return delta;
}

bool DsmlTurnParser::Step(Delta* delta) {
  switch (state_) {
    case State::kProse:
      return StepProse(delta);
    case State::kBetween:
      return StepBetween(delta);
    case State::kInCall:
      return StepInCall(delta);
    case State::kInValue:
      return StepInValue();
    case State::kAfterCalls:
      pending_.Drop(rest().size());
      return false;
    case State::kVerbatim:
      prose_.Emit(rest(), delta);
      pending_.Drop(rest().size());
      return false;
  }
  return false;
}

bool DsmlTurnParser::StepProse(Delta* delta) {
  const ProseReader::Step step = prose_.Read(rest(), delta);
  pending_.Drop(step.num_bytes);
  if (!step.found_block) {
    return false;
  }
  pending_.SkipWhitespace();  // the blank line before the block
  pending_.Consume(tags_->calls_open.size());
  state_ = State::kBetween;
  return true;
}

bool DsmlTurnParser::StepBetween(Delta* delta) {
  pending_.SkipWhitespace();
  if (pending_.Take(tags_->calls_close)) {
    if (!any_call_) {
      GiveUp(delta);
      return false;
    }
    state_ = State::kAfterCalls;
    return true;
  }
  OpeningTag tag;
  switch (ReadOpeningTag(tags_->invoke_open, std::array{kNameEnd}, &tag)) {
    case TagResult::kRead:
      call_ = {.id = "", .name = std::move(tag.name), .arguments = "{"};
      state_ = State::kInCall;
      return true;
    case TagResult::kWait:
      return false;
    case TagResult::kMalformed:
      break;
  }
  if (pending_.MayBecome(tags_->calls_close)) {
    return false;
  }
  GiveUp(delta);
  return false;
}

bool DsmlTurnParser::StepInCall(Delta* delta) {
  pending_.SkipWhitespace();
  if (pending_.Take(tags_->invoke_close)) {
    call_.arguments += "}";
    EmitCall(delta);
    return true;
  }
  OpeningTag tag;
  switch (ReadOpeningTag(tags_->parameter_open,
                         std::array{kStringTrueEnd, kStringFalseEnd}, &tag)) {
    case TagResult::kRead:
      key_ = std::move(tag.name);
      is_string_ = tag.end_idx == 0;
      num_scanned_ = 0;
      state_ = State::kInValue;
      return true;
    case TagResult::kWait:
      return false;
    case TagResult::kMalformed:
      break;
  }
  if (pending_.MayBecome(tags_->invoke_close)) {
    return false;
  }
  GiveUp(delta);
  return false;
}

bool DsmlTurnParser::StepInValue() {
  const std::string_view text = rest();
  const std::string_view close = tags_->parameter_close;
  const size_t end = text.find(close, num_scanned_);
  if (end == std::string_view::npos) {
    num_scanned_ = text.size() - std::min(text.size(), close.size() - 1);
    return false;
  }
  AppendArgument(key_, text.substr(0, end), is_string_, /*is_open=*/false,
                 &call_.arguments);
  pending_.Consume(end + close.size());
  state_ = State::kInCall;
  return true;
}

// Decides by the line of the tag alone, so that it does not matter how much more has
// arrived.
DsmlTurnParser::TagResult DsmlTurnParser::ReadOpeningTag(
    std::string_view open, std::span<const std::string_view> ends, OpeningTag* tag) {
  std::string_view text = rest();
  if (!text.starts_with(open)) {
    return open.starts_with(text) ? TagResult::kWait : TagResult::kMalformed;
  }
  text.remove_prefix(open.size());
  const std::string_view line = text.substr(0, text.find('\n'));
  size_t name_end = std::string_view::npos;
  size_t longest_end = 0;
  for (size_t i = 0; i < ends.size(); ++i) {
    const size_t position = line.find(ends[i]);
    if (position < name_end) {
      name_end = position;
      tag->end_idx = i;
    }
    longest_end = std::max(longest_end, ends[i].size());
  }
  if (name_end <= kMaxNameBytes) {
    tag->name = line.substr(0, name_end);
    pending_.Consume(open.size() + name_end + ends[tag->end_idx].size());
    return TagResult::kRead;
  }
  const bool may_go_on = name_end == std::string_view::npos &&
                         line.size() == text.size() &&
                         line.size() < kMaxNameBytes + longest_end;
  return may_go_on ? TagResult::kWait : TagResult::kMalformed;
}

void DsmlTurnParser::EmitCall(Delta* delta) {
  delta->tool_calls.push_back(std::move(call_));
  call_ = {};
  pending_.Keep();
  any_call_ = true;
  state_ = State::kBetween;
}

// What was generated since the last call is no tool markup: it comes back as content, and
// so does all that follows.
void DsmlTurnParser::GiveUp(Delta* delta) {
  state_ = State::kVerbatim;
  prose_.Emit(pending_.GiveBack(), delta);
}

}  // namespace tessera::model
