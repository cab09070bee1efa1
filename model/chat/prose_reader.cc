#include "model/chat/prose_reader.h"

#include <algorithm>

#include "model/chat/control_tokens.h"

namespace tessera::model {
namespace {

constexpr std::string_view kBlankLine = "\n\n";

}  // namespace

size_t OverlapWith(std::string_view text, std::string_view tag) {
  for (size_t length = std::min(text.size(), tag.size() - 1); length > 0; --length) {
    if (text.ends_with(tag.substr(0, length))) {
      return length;
    }
  }
  return 0;
}

ProseReader::Step ProseReader::Read(std::string_view text, TurnParser::Delta* delta) {
  size_t done = SkipOpening(text);
  if (done == std::string_view::npos) {
    return {};
  }
  const size_t block = text.find(rules_->block_open, done);
  // Before the block, every </think> ends the reasoning or, in the content, is a slip of
  // the model and left out.
  for (size_t end = text.find(kEndThinkToken, done); end < block;
       end = text.find(kEndThinkToken, done)) {
    Emit(text.substr(done, end - done), delta);
    done = end + kEndThinkToken.size();
    at_start_ = at_start_ || (in_reasoning_ && !rules_->keeps_line_breaks);
    in_reasoning_ = false;
  }
  if (block == std::string_view::npos) {
    const size_t decided = text.size() - HeldBack(text.substr(done));
    Emit(text.substr(done, decided - done), delta);
    return {.num_bytes = decided};
  }
  const std::string_view prose = text.substr(done, block - done);
  const bool has_blank_line =
      rules_->blank_line_before_block && prose.ends_with(kBlankLine);
  const size_t prose_end = has_blank_line ? block - kBlankLine.size() : block;
  Emit(text.substr(done, prose_end - done), delta);
  in_reasoning_ = false;  // a block without </think> before it ends the reasoning
  return {.num_bytes = prose_end, .found_block = true};
}

size_t ProseReader::SkipOpening(std::string_view text) {
  if (!may_open_) {
    return 0;
  }
  if (text.size() < kThinkToken.size() && kThinkToken.starts_with(text)) {
    return std::string_view::npos;
  }
  may_open_ = false;
  if (!text.starts_with(kThinkToken)) {
    return 0;
  }
  in_reasoning_ = true;
  return kThinkToken.size();
}

size_t ProseReader::HeldBack(std::string_view text) const {
  size_t held =
      std::max(OverlapWith(text, kEndThinkToken), OverlapWith(text, rules_->block_open));
  if (rules_->blank_line_before_block) {
    held =
        std::max(held, OverlapWith(text, std::string(kBlankLine) + rules_->block_open));
  }
  return held;
}

void ProseReader::Emit(std::string_view text, TurnParser::Delta* delta) {
  if (in_reasoning_) {
    delta->reasoning += text;
    return;
  }
  if (at_start_) {
    text.remove_prefix(std::min(text.find_first_not_of('\n'), text.size()));
    at_start_ = text.empty();
  }
  delta->content += text;
}

}  // namespace tessera::model
