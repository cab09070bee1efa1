#include "model/chat/v3_encoding.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/status.h"
#include "common/status_macros.h"
#include "model/chat/attachments.h"
#include "model/chat/call_parser.h"
#include "model/chat/control_tokens.h"
#include "model/chat/prompt_writer.h"
#include "model/chat/prose_reader.h"
#include "model/chat/strict_turn.h"
#include "model/tokenizer/added_tokens.h"

namespace tessera::model {
namespace {

constexpr std::array kAllTokens = {
    kBosToken,          kEosToken,        kUserToken,        kAssistantToken,
    kCallsBeginToken,   kCallsEndToken,   kCallBeginToken,   kCallEndToken,
    kOutputsBeginToken, kOutputsEndToken, kOutputBeginToken, kOutputEndToken,
    kSepToken,          kThinkToken,      kEndThinkToken};
constexpr size_t kNumThinkTokens = 2;  // at the end of the list

bool IsSystem(const ChatMessage& message) {
  return message.role == "system" || message.role == "developer";
}

// What a message follows, as far as the prompt has been written.
struct RenderState {
  bool after_user = false;
  bool after_result = false;
  bool results_open = false;  // the group of results has begun
  bool only_system = true;
};

absl::Status CheckMessages(const std::vector<ChatMessage>& messages) {
  if (messages.empty()) {
    return InvalidArgumentF("no messages, expected at least one");
  }
  constexpr std::array<std::string_view, 5> kRoles = {"system", "developer", "user",
                                                      "assistant", "tool"};
  bool has_calls = false;
  for (const ChatMessage& message : messages) {
    if (std::find(kRoles.begin(), kRoles.end(), message.role) == kRoles.end()) {
      return InvalidArgumentF(
          "message role `{}`, expected system, developer, user, assistant or tool",
          message.role);
    }
    if (message.role == "tool" && !has_calls) {
      return InvalidArgumentF("tool message for `{}` follows no tool call",
                              message.tool_call_id);
    }
    if (message.role != "tool" && !IsSystem(message)) {
      has_calls = !message.tool_calls.empty();
    }
  }
  return absl::OkStatus();
}

class V3Encoding final : public ChatEncoding {
 public:
  V3Encoding(const CallFormat& format, const Tokenizer* tokenizer,
             const std::vector<AddedToken>& control_tokens)
      : format_(format),
        tokenizer_(tokenizer),
        control_tokens_(control_tokens),
        calls_text_(MakeCallsText(format)),
        prose_({.block_open = std::string(kCallsBeginToken),
                .may_open_reasoning = format.has_reasoning}) {}

  absl::StatusOr<EncodedChat> Encode(const std::vector<ChatMessage>& messages,
                                     const ChatOptions& options) const override {
    TESSERA_RETURN_IF_ERROR(CheckMessages(messages));
    if (options.effort_number != 0) {
      return InvalidArgumentF("reasoning effort {}, this model knows none",
                              options.effort_number);
    }
    PromptWriter writer(tokenizer_, &control_tokens_);
    writer.Own(kBosToken);
    TESSERA_RETURN_IF_ERROR(WriteSystem(messages, &writer));
    RenderState state;
    for (const ChatMessage& message : messages) {
      if (message.role == "user") {
        WriteUser(message, &state, &writer);
      } else if (message.role == "assistant") {
        WriteAssistant(message, options, &state, &writer);
      } else if (message.role == "tool") {
        WriteResult(message, &state, &writer);
      }
    }
    WriteEnd(options, state, &writer);
    return writer.Finish();
  }

  CallMarkup call_markup() const override {
    return {.block_open = std::string(kCallsBeginToken),
            .call_open = fmt::format("{}{}", kCallBeginToken, format_.before_name),
            .after_name = std::string(format_.after_name),
            .call_close = fmt::format("{}{}", format_.after_arguments, kCallEndToken),
            .between_calls = std::string(format_.between_calls),
            .block_close = std::string(kCallsEndToken)};
  }

  std::unique_ptr<TurnParser> NewTurnParser(bool thinking) const override {
    return std::make_unique<CallTurnParser>(&format_, &prose_,
                                            thinking && format_.has_reasoning);
  }

  absl::StatusOr<ParsedTurn> ParseTurn(std::string_view text,
                                       bool thinking) const override {
    ParsedTurn turn;
    if (text.ends_with(kEosToken)) {
      text.remove_suffix(kEosToken.size());
    }
    if (thinking && format_.has_reasoning) {
      TESSERA_ASSIGN_OR_RETURN(turn.reasoning, ReadReasoning(kAllTokens, &text));
      text.remove_prefix(std::min(text.find_first_not_of('\n'), text.size()));
    }
    const size_t block = text.find(kCallsBeginToken);
    turn.content = text.substr(0, block);
    TESSERA_RETURN_IF_ERROR(RefuseControlTokens("content", turn.content, kAllTokens));
    if (block == std::string_view::npos) {
      return turn;
    }
    text.remove_prefix(block);
    TESSERA_ASSIGN_OR_RETURN(turn.tool_calls, ReadCalls(format_, &text));
    if (!text.empty()) {
      return InvalidArgumentF("`{}` after the tool block, expected the end of the turn",
                              text.substr(0, 40));
    }
    return turn;
  }

 private:
  absl::Status WriteSystem(const std::vector<ChatMessage>& messages,
                           PromptWriter* writer) const {
    Attachments all;
    bool is_first = true;
    for (const ChatMessage& message : messages) {
      if (!IsSystem(message)) {
        continue;
      }
      writer->Own(is_first ? "" : "\n\n");
      writer->Untrusted(message.content);
      is_first = false;
      TESSERA_ASSIGN_OR_RETURN(Attachments own, ParseAttachments(message));
      std::move(own.functions.begin(), own.functions.end(),
                std::back_inserter(all.functions));
      if (!own.response_format.empty()) {
        all.response_format = std::move(own.response_format);
      }
    }
    WriteTools(all.functions, writer);
    WriteResponseFormat(all, writer);
    return absl::OkStatus();
  }

  void WriteTools(const std::vector<PythonJson>& functions, PromptWriter* writer) const {
    if (functions.empty()) {
      return;
    }
    writer->Own("\n\n## Tools\nYou have access to the following tools:\n\n");
    const auto text_of = [](const PythonJson* value) {
      return value == nullptr ? std::string() : value->text;
    };
    for (const PythonJson& function : functions) {
      writer->Own("### ");
      writer->Untrusted(text_of(function.Find("name")));
      writer->Own("\nDescription: ");
      writer->Untrusted(text_of(function.Find("description")));
      writer->Own("\n\nParameters: ");
      const PythonJson* parameters = function.Find("parameters");
      writer->Untrusted(parameters == nullptr ? "{}" : parameters->Dump());
      writer->Own("\n\n");
    }
    writer->Own(calls_text_);
  }

  void WriteUser(const ChatMessage& message, RenderState* state,
                 PromptWriter* writer) const {
    writer->Own(kUserToken);
    writer->Untrusted(message.content);
    if (format_.header == HeaderPlace::kAfterUser) {
      writer->Own(kAssistantToken);
    }
    *state = {
        .after_user = true, .results_open = state->results_open, .only_system = false};
  }

  void WriteAssistant(const ChatMessage& message, const ChatOptions& options,
                      RenderState* state, PromptWriter* writer) const {
    const bool has_calls = !message.tool_calls.empty();
    const bool in_reasoning = WriteHeader(message, options, *state, writer);
    if (state->after_result) {
      writer->Own(format_.results_close);
    }
    // Where a client leaves the reasoning in the content, it is cut off.
    std::string_view content = message.content;
    const size_t reasoning_end = content.find(kEndThinkToken);
    if (format_.has_reasoning && reasoning_end != std::string_view::npos) {
      content.remove_prefix(reasoning_end + kEndThinkToken.size());
    }
    if (in_reasoning && !message.reasoning_content.empty()) {
      writer->Untrusted(message.reasoning_content);
      writer->Own(kEndThinkToken);
    }
    writer->Untrusted(content);
    if (has_calls) {
      WriteCalls(format_, message.tool_calls, writer);
    }
    if (!message.without_eos) {
      writer->Own(kEosToken);
    }
    // Only calls begin a new group of results, as in the templates.
    *state = {.results_open = state->results_open && !has_calls, .only_system = false};
  }

  // The assistant's token where an answer needs it. True: the answer, which is to be
  // continued, was opened with <think>.
  bool WriteHeader(const ChatMessage& message, const ChatOptions& options,
                   const RenderState& state, PromptWriter* writer) const {
    const bool has_calls = !message.tool_calls.empty();
    const bool is_continued = message.without_eos && options.thinking && !has_calls;
    switch (format_.header) {
      case HeaderPlace::kAfterUser:
        return false;
      case HeaderPlace::kBeforeAnswer:
        if (state.after_result) {
          return false;
        }
        break;
      case HeaderPlace::kBetween:
        if (!state.after_user && !(has_calls && state.only_system)) {
          return false;
        }
        break;
    }
    writer->Own(kAssistantToken);
    writer->Own(is_continued ? format_.open_thinking : format_.open_past);
    return is_continued;
  }

  void WriteResult(const ChatMessage& message, RenderState* state,
                   PromptWriter* writer) const {
    writer->Own(state->results_open ? format_.between_results : format_.results_open);
    writer->Own(kOutputBeginToken);
    writer->Untrusted(message.content);
    writer->Own(kOutputEndToken);
    *state = {.after_result = true, .results_open = true, .only_system = false};
  }

  void WriteEnd(const ChatOptions& options, const RenderState& state,
                PromptWriter* writer) const {
    if (state.after_result) {
      writer->Own(format_.results_close);
      return;
    }
    const bool has_header = format_.header == HeaderPlace::kAfterUser && state.after_user;
    if (!options.add_generation_prompt || has_header) {
      return;
    }
    writer->Own(kAssistantToken);
    writer->Own(options.thinking ? format_.open_thinking : format_.open_plain);
  }

  const CallFormat& format_;
  const Tokenizer* tokenizer_;
  const AddedTokenTrie control_tokens_;
  const std::string calls_text_;
  const ProseRules prose_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ChatEncoding>> CreateV3Encoding(
    const CallFormat& format, const Tokenizer* tokenizer) {
  const size_t num_tokens =
      kAllTokens.size() - (format.has_reasoning ? 0 : kNumThinkTokens);
  TESSERA_ASSIGN_OR_RETURN(
      const std::vector<AddedToken> tokens,
      FindControlTokens(*tokenizer, std::span(kAllTokens).first(num_tokens)));
  return std::make_unique<V3Encoding>(format, tokenizer, tokens);
}

}  // namespace tessera::model
