#include "model/chat/prompt_writer.h"

#include <utility>

#include "model/chat/control_tokens.h"
#include "model/tokenizer/utf8.h"

namespace tessera::model {

void PromptWriter::Own(std::string_view text) {
  control_tokens_->Split(text, [this](const AddedTokenTrie::Segment& segment) {
    if (segment.id >= 0) {
      controls_.push_back({text_.size(), text_.size() + segment.text.size(), segment.id});
    }
    text_ += segment.text;
  });
}

void PromptWriter::Untrusted(std::string_view text) {
  if (WellFormedPrefix(text) == text.size()) {
    text_ += text;
  } else {
    // Here, not in the tokenizer: half a character at the end must not join what follows.
    text_ += ReplaceIllFormed(text);
  }
}

bool PromptWriter::EndsInReasoning() const {
  for (auto control = controls_.rbegin(); control != controls_.rend(); ++control) {
    const std::string_view token =
        std::string_view(text_).substr(control->begin, control->end - control->begin);
    if (token == kThinkToken || token == kEndThinkToken) {
      return token == kThinkToken;
    }
  }
  return false;
}

EncodedChat PromptWriter::Finish() {
  EncodedChat chat;
  const auto append_run = [&](size_t begin, size_t end) {
    if (begin < end) {
      const std::vector<int32_t> ids = tokenizer_->Encode(
          std::string_view(text_).substr(begin, end - begin), AddedTokens::kPlain);
      chat.ids.insert(chat.ids.end(), ids.begin(), ids.end());
    }
  };
  size_t done = 0;
  for (const ControlToken& control : controls_) {
    append_run(done, control.begin);
    chat.ids.push_back(control.id);
    done = control.end;
  }
  append_run(done, text_.size());
  chat.in_reasoning = EndsInReasoning();
  chat.text = std::move(text_);
  return chat;
}

}  // namespace tessera::model
