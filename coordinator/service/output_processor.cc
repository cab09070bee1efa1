#include "coordinator/service/output_processor.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace tessera::coordinator {
namespace {

// Length of the longest end of `text` that is a proper beginning of `stop`. Both are
// short: the text is what one token brought and at most a stop string (64 bytes).
size_t HeldBack(std::string_view text, std::string_view stop) {
  for (size_t length = std::min(text.size(), stop.size() - 1); length > 0; --length) {
    if (text.ends_with(stop.substr(0, length))) {
      return length;
    }
  }
  return 0;
}

}  // namespace

OutputProcessor::OutputProcessor(std::shared_ptr<const OutputRules> rules,
                                 const model::Tokenizer* tokenizer)
    : rules_(std::move(rules)), decoder_(tokenizer, rules_->skip_special_tokens) {}

OutputPiece OutputProcessor::Push(int32_t token, bool length_reached) {
  ++num_tokens_;
  OutputPiece piece;
  const bool may_stop = num_tokens_ > rules_->min_tokens;
  const bool is_stop =
      may_stop && std::binary_search(rules_->stop_token_ids.begin(),
                                     rules_->stop_token_ids.end(), token);
  if (!is_stop || rules_->include_stop_text) {
    pending_ += decoder_.Push(token);
    if (may_stop) {
      CutAtStopString(&piece);
    } else {
      piece.text = std::exchange(pending_, {});
    }
  }
  if (!piece.finished && is_stop) {
    piece.finished = true;
    piece.stop_token = token;
  } else if (!piece.finished && length_reached) {
    piece.finished = true;
    piece.reason = FinishReason::kLength;
  }
  if (piece.finished && !piece.stop_string.has_value()) {
    piece.rest = std::exchange(pending_, {}) + decoder_.Flush();
  }
  return piece;
}

void OutputProcessor::CutAtStopString(OutputPiece* piece) {
  size_t match_begin = std::string::npos;
  const std::string* match = nullptr;
  size_t held_back = 0;
  for (const std::string& stop : rules_->stop_strings) {
    if (stop.empty()) {
      continue;
    }
    const size_t found = pending_.find(stop);
    if (found < match_begin) {
      match_begin = found;
      match = &stop;
    }
    held_back = std::max(held_back, HeldBack(pending_, stop));
  }
  if (match != nullptr) {
    piece->finished = true;
    piece->stop_string = *match;
    const size_t end = match_begin + (rules_->include_stop_text ? match->size() : 0);
    piece->text = pending_.substr(0, end);
    pending_.clear();
    return;
  }
  piece->text = pending_.substr(0, pending_.size() - held_back);
  pending_.erase(0, pending_.size() - held_back);
}

}  // namespace tessera::coordinator
