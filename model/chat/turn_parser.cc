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
  pending_ += text;
  while (Step(&delta)) {
  }
  // Once per call, not per tag, so that a long text in one piece costs linear time.
  pending_.erase(0, position_);
  position_ = 0;
  return delta;
}

TurnParser::Delta DsmlTurnParser::Finish() {
  Delta delta;
  switch (state_) {
    case State::kReasoning:
    case State::kContent:
      EmitProse(rest(), &delta);
      break;
    case State::kBetween:
      // A block that was only about to close lost nothing but its closing tag.
      if (!any_call_ || !std::string_view(tags_->calls_close).starts_with(rest())) {
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
  pending_.clear();
  position_ = 0;
  state_ = State::kAfterCalls;
  return delta;
}

bool DsmlTurnParser::Step(Delta* delta) {
  switch (state_) {
    case State::kReasoning:
    case State::kContent:
      return StepProse(delta);
    case State::kBetween:
      return StepBetween(delta);
    case State::kInCall:
      return StepInCall(delta);
    case State::kInValue:
      return StepInValue();
    case State::kAfterCalls:
      position_ = pending_.size();
      return false;
    case State::kVerbatim:
      EmitProse(rest(), delta);
      position_ = pending_.size();
      return false;
  }
  return false;
}

bool DsmlTurnParser::StepProse(Delta* delta) {
  constexpr std::string_view kBlankLine = "\n\n";
  const std::string_view text = rest();
  const size_t think_end = text.find(kEndThinkToken);
  const size_t block = text.find(tags_->calls_open);
  if (think_end == std::string_view::npos && block == std::string_view::npos) {
    const std::string block_with_blank_line = std::string(kBlankLine) + tags_->calls_open;
    const size_t held_back =
        std::max({OverlapWith(text, kEndThinkToken), OverlapWith(text, tags_->calls_open),
                  OverlapWith(text, block_with_blank_line)});
    EmitProse(text.substr(0, text.size() - held_back), delta);
    position_ = pending_.size() - held_back;
    return false;
  }
  if (think_end < block) {
    EmitProse(text.substr(0, think_end), delta);
    position_ += think_end + kEndThinkToken.size();
    at_start_ = at_start_ || state_ == State::kReasoning;
    state_ = State::kContent;
    return true;
  }
  // The blank line belongs to the block, and is missing at times.
  const size_t prose_end =
      text.substr(0, block).ends_with(kBlankLine) ? block - kBlankLine.size() : block;
  EmitProse(text.substr(0, prose_end), delta);
  position_ += prose_end;
  Consume(block - prose_end + tags_->calls_open.size());
  state_ = State::kBetween;
  return true;
}

bool DsmlTurnParser::StepBetween(Delta* delta) {
  SkipWhitespace();
  if (TakeTag(tags_->calls_close)) {
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
  if (std::string_view(tags_->calls_close).starts_with(rest())) {
    return false;
  }
  GiveUp(delta);
  return false;
}

bool DsmlTurnParser::StepInCall(Delta* delta) {
  SkipWhitespace();
  if (TakeTag(tags_->invoke_close)) {
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
  if (std::string_view(tags_->invoke_close).starts_with(rest())) {
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
  Consume(end + close.size());
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
    Consume(open.size() + name_end + ends[tag->end_idx].size());
    return TagResult::kRead;
  }
  const bool may_go_on = name_end == std::string_view::npos &&
                         line.size() == text.size() &&
                         line.size() < kMaxNameBytes + longest_end;
  return may_go_on ? TagResult::kWait : TagResult::kMalformed;
}

void DsmlTurnParser::EmitProse(std::string_view text, Delta* delta) {
  if (state_ == State::kReasoning) {
    delta->reasoning += text;
    return;
  }
  if (at_start_) {
    text.remove_prefix(std::min(text.find_first_not_of('\n'), text.size()));
    at_start_ = text.empty();
  }
  delta->content += text;
}

// Steps over part of a block, which can still be given back.
void DsmlTurnParser::Consume(size_t num_bytes) {
  raw_ += rest().substr(0, num_bytes);
  position_ += num_bytes;
}

void DsmlTurnParser::SkipWhitespace() {
  Consume(std::min(rest().find_first_not_of(" \t\r\n"), rest().size()));
}

bool DsmlTurnParser::TakeTag(std::string_view tag) {
  if (!rest().starts_with(tag)) {
    return false;
  }
  Consume(tag.size());
  return true;
}

void DsmlTurnParser::EmitCall(Delta* delta) {
  delta->tool_calls.push_back(std::move(call_));
  call_ = {};
  raw_.clear();
  any_call_ = true;
  state_ = State::kBetween;
}

// What was generated since the last call is no tool markup: it comes back as content, and
// so does all that follows.
void DsmlTurnParser::GiveUp(Delta* delta) {
  state_ = State::kVerbatim;
  raw_ += rest();
  EmitProse(raw_, delta);
  raw_.clear();
  position_ = pending_.size();
}

}  // namespace tessera::model
