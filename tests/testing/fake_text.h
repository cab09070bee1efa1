// ByteTokenizer and PlainChat: the text parts of a model small enough to compute by hand.
// One token per byte plus a few control tokens, and a chat encoding whose prompt can be
// read.
#ifndef TESSERA_TESTS_TESTING_FAKE_TEXT_H_
#define TESSERA_TESTS_TESTING_FAKE_TEXT_H_

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "model/chat/chat_encoding.h"
#include "model/tokenizer/tokenizer.h"

namespace tessera::tests {

// Ids 0 to 255 are bytes; 256 "<｜Assistant｜>" and 257 "<eos>" are control tokens.
// Immutable.
class ByteTokenizer final : public model::Tokenizer {
 public:
  static constexpr int32_t kAssistant = 256;
  static constexpr int32_t kEos = 257;
  static constexpr std::string_view kAssistantText = "<｜Assistant｜>";

  ByteTokenizer() {
    for (int i = 0; i < 256; ++i) {
      bytes_.push_back(std::string(1, static_cast<char>(i)));
    }
    bytes_.emplace_back(kAssistantText);
    bytes_.emplace_back("<eos>");
  }

  std::vector<int32_t> Encode(std::string_view text,
                              model::AddedTokens added) const override {
    std::vector<int32_t> ids;
    while (!text.empty()) {
      if (added == model::AddedTokens::kRecognize && text.starts_with(kAssistantText)) {
        ids.push_back(kAssistant);
        text.remove_prefix(kAssistantText.size());
      } else {
        ids.push_back(static_cast<unsigned char>(text.front()));
        text.remove_prefix(1);
      }
    }
    return ids;
  }

  absl::StatusOr<std::string> Decode(std::span<const int32_t> ids,
                                     bool skip_special) const override {
    std::string text;
    for (const int32_t id : ids) {
      if (id < 0 || id >= size()) {
        return InvalidArgumentF("token id {}", id);
      }
      if (!skip_special || !IsSpecial(id)) {
        text += bytes_[static_cast<size_t>(id)];
      }
    }
    return text;
  }

  std::string_view TokenBytes(int32_t id) const override {
    return bytes_[static_cast<size_t>(id)];
  }

  std::optional<int32_t> TokenId(std::string_view text) const override {
    for (int32_t id = 0; id < size(); ++id) {
      if (TokenBytes(id) == text) {
        return id;
      }
    }
    return std::nullopt;
  }

  bool IsSpecial(int32_t id) const override { return id >= kAssistant; }
  int32_t size() const override { return static_cast<int32_t>(bytes_.size()); }

 private:
  std::vector<std::string> bytes_;
};

// Prompt: "role=content;" per message, with "[tools]" where tools are and "[think]" at
// the end when thinking, with the effort's number where there is one. An answer that is
// continued is past its reasoning. Output: reasoning up to "</think>", and "<call>" is a
// tool call of get_time with {}.
class PlainChat final : public model::ChatEncoding {
 public:
  explicit PlainChat(const model::Tokenizer* tokenizer) : tokenizer_(tokenizer) {}

  model::ChatTraits traits() const override { return traits_; }
  void set_traits(const model::ChatTraits& traits) { traits_ = traits; }

  absl::StatusOr<model::EncodedChat> Encode(
      const std::vector<model::ChatMessage>& messages,
      const model::ChatOptions& options) const override {
    model::EncodedChat out;
    for (const model::ChatMessage& message : messages) {
      out.text += message.role + "=" + message.content;
      out.text += message.tools_json.empty() ? "" : "[tools]";
      out.text += message.without_eos ? "" : ";";
    }
    if (options.thinking) {
      out.text += options.effort_number != 0
                      ? "[think " + std::to_string(options.effort_number) + "]"
                  : options.effort == model::ReasoningEffort::kMax ? "[think max]"
                                                                   : "[think]";
    }
    out.in_reasoning = options.thinking && !messages.back().without_eos;
    out.ids = tokenizer_->Encode(out.text, model::AddedTokens::kPlain);
    return out;
  }

  std::unique_ptr<model::TurnParser> NewTurnParser(bool thinking) const override {
    return std::make_unique<Parser>(thinking);
  }

  absl::StatusOr<model::ParsedTurn> ParseTurn(std::string_view /*text*/,
                                              bool /*thinking*/) const override {
    return absl::UnimplementedError("not needed by the tests");
  }

 private:
  // Tags must come as one token each.
  class Parser final : public model::TurnParser {
   public:
    explicit Parser(bool thinking) : thinking_(thinking) {}
    Delta Push(std::string_view text) override {
      Delta delta;
      if (text == "</think>") {
        thinking_ = false;
      } else if (text == "<call>") {
        delta.tool_calls.push_back({"", "get_time", "{}"});
      } else if (thinking_) {
        delta.reasoning = std::string(text);
      } else {
        delta.content = std::string(text);
      }
      return delta;
    }
    Delta Finish() override { return {}; }

   private:
    bool thinking_;
  };

  const model::Tokenizer* tokenizer_;
  model::ChatTraits traits_;
};

}  // namespace tessera::tests

#endif  // TESSERA_TESTS_TESTING_FAKE_TEXT_H_
