#include "model/chat/v4_encoding.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/status.h"
#include "common/status_macros.h"
#include "model/chat/conversation.h"
#include "model/chat/dsml.h"
#include "model/chat/prompt_writer.h"
#include "model/chat/python_json.h"
#include "model/chat/turn_parser.h"
#include "model/tokenizer/added_tokens.h"

namespace tessera::model {
namespace {

constexpr std::array<std::string_view, 6> kTaskNames = {"action", "query", "authority",
                                                        "domain", "title", "read_url"};

// All control tokens of the family with their ids; an error if one is missing.
absl::StatusOr<std::vector<AddedToken>> ControlTokens(const Tokenizer& tokenizer) {
  std::vector<std::string_view> texts = {
      kBosToken,   kEosToken,      kUserToken, kAssistantToken,
      kThinkToken, kEndThinkToken, kDsmlToken, kLatestReminderToken};
  for (const std::string_view task : kTaskNames) {
    texts.push_back(TaskToken(task));
  }
  std::vector<AddedToken> tokens;
  for (const std::string_view text : texts) {
    const std::optional<int32_t> id = tokenizer.TokenId(text);
    if (!id.has_value()) {
      return InvalidArgumentF(
          "tokenizer has no token `{}`, which the chat encoding writes", text);
    }
    tokens.push_back({.id = *id, .content = std::string(text)});
  }
  return tokens;
}

// What a system or developer message adds after its text; parsed before anything is
// written.
struct Attachments {
  std::vector<std::string> tool_schemas;
  std::string response_format;
};

absl::StatusOr<Attachments> ParseAttachments(const ChatMessage& message) {
  Attachments attachments;
  if (!message.tools_json.empty()) {
    TESSERA_ASSIGN_OR_RETURN(const PythonJson tools,
                             PythonJson::Parse(message.tools_json));
    if (tools.kind != PythonJson::Kind::kArray) {
      return InvalidArgumentF("tools are no array");
    }
    for (const PythonJson& tool : tools.items) {
      const PythonJson* function = tool.Find("function");
      if (function == nullptr || function->kind != PythonJson::Kind::kObject) {
        return InvalidArgumentF("tool {} has no `function` object",
                                attachments.tool_schemas.size());
      }
      attachments.tool_schemas.push_back(function->Dump());
    }
  }
  if (!message.response_format_json.empty()) {
    TESSERA_ASSIGN_OR_RETURN(const PythonJson format,
                             PythonJson::Parse(message.response_format_json));
    if (format.IsTruthy()) {
      attachments.response_format = format.Dump();
    }
  }
  return attachments;
}

// The rules of one call of Encode.
struct RenderState {
  bool thinking = false;
  bool drop_thinking = false;  // false as soon as tools are defined
  int last_user = -1;
};

class V4Encoding final : public ChatEncoding {
 public:
  V4Encoding(const EncodingGeneration& generation, const Tokenizer* tokenizer,
             const std::vector<AddedToken>& control_tokens)
      : generation_(generation),
        tokenizer_(tokenizer),
        control_tokens_(control_tokens),
        tags_(generation),
        tools_text_(MakeToolsText(generation)) {}

  absl::StatusOr<EncodedChat> Encode(const std::vector<ChatMessage>& messages,
                                     const ChatOptions& options) const override {
    TESSERA_ASSIGN_OR_RETURN(std::vector<Turn> turns, MakeTurns(messages));
    std::vector<Attachments> attachments(turns.size());
    RenderState state{.thinking = options.thinking,
                      .drop_thinking = options.drop_thinking};
    for (size_t i = 0; i < turns.size(); ++i) {
      if (turns[i].role == TurnRole::kSystem || turns[i].role == TurnRole::kDeveloper) {
        TESSERA_ASSIGN_OR_RETURN(attachments[i], ParseAttachments(*turns[i].message));
        state.drop_thinking = state.drop_thinking && attachments[i].tool_schemas.empty();
      }
    }
    if (state.thinking && state.drop_thinking) {
      DropOldTurns(&turns, &attachments);
    }
    state.last_user = LastUserTurn(turns);
    PromptWriter writer(tokenizer_, &control_tokens_);
    writer.Own(kBosToken);
    if (state.thinking) {
      writer.Own(EffortText(options.effort));
    }
    for (size_t i = 0; i < turns.size(); ++i) {
      WriteTurn(turns, i, attachments[i], state, &writer);
      if (i + 1 < turns.size() || options.add_generation_prompt) {
        WriteTransition(turns, i, state, &writer);
      }
    }
    return writer.Finish();
  }

  std::unique_ptr<TurnParser> NewTurnParser(bool thinking) const override {
    return std::make_unique<DsmlTurnParser>(&tags_, thinking);
  }

  absl::StatusOr<ParsedTurn> ParseTurn(std::string_view text,
                                       bool thinking) const override {
    ParsedTurn turn;
    if (text.ends_with(kEosToken)) {
      text.remove_suffix(kEosToken.size());
    }
    if (thinking) {
      const size_t end = text.find(kEndThinkToken);
      if (end == std::string_view::npos) {
        return InvalidArgumentF("the reasoning has no end, expected `{}`",
                                kEndThinkToken);
      }
      turn.reasoning = text.substr(0, end);
      TESSERA_RETURN_IF_ERROR(RefuseControlTokens("reasoning", turn.reasoning));
      text.remove_prefix(end + kEndThinkToken.size());
    }
    const std::string block_start = "\n\n" + tags_.calls_open;
    const size_t block = text.find(block_start);
    turn.content = text.substr(0, block);
    TESSERA_RETURN_IF_ERROR(RefuseControlTokens("content", turn.content));
    if (thinking) {
      // Models often put a blank line between the reasoning and the answer.
      turn.content.erase(
          0, std::min(turn.content.find_first_not_of('\n'), turn.content.size()));
    }
    if (block == std::string_view::npos) {
      // A lone "<" at the end is text; more of the tag than that is a cut-off block.
      if (OverlapWith(text, tags_.calls_open) > 1) {
        return InvalidArgumentF("the turn ends inside `{}`", tags_.calls_open);
      }
      return turn;
    }
    text.remove_prefix(block + 2);
    TESSERA_ASSIGN_OR_RETURN(turn.tool_calls, ReadToolCalls(tags_, &text));
    if (!text.empty()) {
      return InvalidArgumentF("`{}` after the tool block, expected the end of the turn",
                              text.substr(0, 40));
    }
    return turn;
  }

 private:
  std::string_view EffortText(ReasoningEffort effort) const {
    switch (effort) {
      case ReasoningEffort::kNone:
        return {};
      case ReasoningEffort::kLow:
        return generation_.low_effort_text;
      case ReasoningEffort::kHigh:
        return generation_.high_effort_text;
      case ReasoningEffort::kMax:
        return generation_.max_effort_text;
    }
    return {};
  }

  // Developer turns go, with what was attached to them.
  static void DropOldTurns(std::vector<Turn>* turns,
                           std::vector<Attachments>* attachments) {
    std::vector<Turn> kept = *turns;
    DropOldDeveloperTurns(&kept);
    std::vector<Attachments> kept_attachments;
    size_t next = 0;
    for (size_t i = 0; i < turns->size(); ++i) {
      if (next < kept.size() && kept[next].message == (*turns)[i].message) {
        kept_attachments.push_back(std::move((*attachments)[i]));
        ++next;
      }
    }
    *turns = std::move(kept);
    *attachments = std::move(kept_attachments);
  }

  void WriteTurn(const std::vector<Turn>& turns, size_t idx,
                 const Attachments& attachments, const RenderState& state,
                 PromptWriter* writer) const {
    const Turn& turn = turns[idx];
    switch (turn.role) {
      case TurnRole::kSystem:
        writer->Untrusted(turn.message->content);
        WriteAttachments(attachments, writer);
        break;
      case TurnRole::kDeveloper:
        writer->Own(kUserToken);
        writer->Untrusted(turn.message->content);
        WriteAttachments(attachments, writer);
        break;
      case TurnRole::kUser:
        WriteBlocks(turn.blocks, writer);
        break;
      case TurnRole::kLatestReminder:
        writer->Own(kLatestReminderToken);
        writer->Untrusted(turn.message->content);
        break;
      case TurnRole::kAssistant:
        WriteAssistant(turns, idx, state, writer);
        break;
    }
  }

  void WriteAttachments(const Attachments& attachments, PromptWriter* writer) const {
    if (!attachments.tool_schemas.empty()) {
      writer->Own("\n\n");
      writer->Own(tools_text_.before_schemas);
      for (size_t i = 0; i < attachments.tool_schemas.size(); ++i) {
        writer->Own(i == 0 ? "" : "\n");
        writer->Untrusted(attachments.tool_schemas[i]);
      }
      writer->Own(tools_text_.after_schemas);
    }
    if (!attachments.response_format.empty()) {
      writer->Own("\n\n");
      writer->Own(kResponseFormatText);
      writer->Untrusted(attachments.response_format);
    }
  }

  static void WriteBlocks(const std::vector<TurnBlock>& blocks, PromptWriter* writer) {
    writer->Own(kUserToken);
    for (size_t i = 0; i < blocks.size(); ++i) {
      writer->Own(i == 0 ? "" : "\n\n");
      writer->Own(blocks[i].is_tool_result ? "<tool_result>" : "");
      writer->Untrusted(blocks[i].text);
      writer->Own(blocks[i].is_tool_result ? "</tool_result>" : "");
    }
  }

  void WriteAssistant(const std::vector<Turn>& turns, size_t idx,
                      const RenderState& state, PromptWriter* writer) const {
    const ChatMessage& message = *turns[idx].message;
    const bool answers_task = idx > 0 && !turns[idx - 1].task.empty();
    const bool keeps_reasoning =
        !state.drop_thinking || static_cast<int>(idx) > state.last_user;
    if (state.thinking && !answers_task && keeps_reasoning) {
      // <think> itself was written by the transition of the turn before.
      writer->Untrusted(message.reasoning_content);
      writer->Own(kEndThinkToken);
    }
    writer->Untrusted(message.content);
    if (!message.tool_calls.empty()) {
      writer->Own("\n\n");
      WriteToolCalls(tags_, message.tool_calls, writer);
    }
    if (!message.without_eos) {
      writer->Own(kEosToken);
    }
  }

  // Opens the assistant's turn after `turns[idx]`, where one follows or is to be
  // generated.
  static void WriteTransition(const std::vector<Turn>& turns, size_t idx,
                              const RenderState& state, PromptWriter* writer) {
    const bool is_last = idx + 1 == turns.size();
    const TurnRole next = is_last ? TurnRole::kAssistant : turns[idx + 1].role;
    if (next != TurnRole::kAssistant && next != TurnRole::kLatestReminder) {
      return;
    }
    const Turn& turn = turns[idx];
    if (!turn.task.empty()) {
      if (turn.task == "action") {
        writer->Own(kAssistantToken);
        writer->Own(state.thinking ? kThinkToken : kEndThinkToken);
      }
      writer->Own(TaskToken(turn.task));
      return;
    }
    // A system turn opens one only for an assistant: a reminder after it belongs to the
    // prompt.
    const bool opens = turn.role == TurnRole::kUser ||
                       turn.role == TurnRole::kDeveloper ||
                       (turn.role == TurnRole::kSystem && next == TurnRole::kAssistant);
    if (!opens) {
      return;
    }
    const bool thinks = state.thinking && (!state.drop_thinking ||
                                           static_cast<int>(idx) >= state.last_user);
    writer->Own(kAssistantToken);
    writer->Own(thinks ? kThinkToken : kEndThinkToken);
  }

  // In a well-formed turn these stand only where the grammar puts them.
  static absl::Status RefuseControlTokens(std::string_view part, std::string_view text) {
    for (const std::string_view token :
         {kBosToken, kEosToken, kThinkToken, kEndThinkToken, kDsmlToken}) {
      if (text.find(token) != std::string_view::npos) {
        return InvalidArgumentF("{} contains the control token `{}`", part, token);
      }
    }
    return absl::OkStatus();
  }

  const EncodingGeneration& generation_;
  const Tokenizer* tokenizer_;
  AddedTokenTrie control_tokens_;
  DsmlTags tags_;
  ToolsText tools_text_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ChatEncoding>> CreateV4Encoding(
    const EncodingGeneration& generation, const Tokenizer* tokenizer) {
  TESSERA_ASSIGN_OR_RETURN(const std::vector<AddedToken> tokens,
                           ControlTokens(*tokenizer));
  return std::make_unique<V4Encoding>(generation, tokenizer, tokens);
}

}  // namespace tessera::model
