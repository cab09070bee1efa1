#include "model/chat/v4_encoding.h"

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/status_macros.h"
#include "model/chat/attachments.h"
#include "model/chat/control_tokens.h"
#include "model/chat/conversation.h"
#include "model/chat/dsml.h"
#include "model/chat/dsml_encoding.h"
#include "model/chat/prompt_writer.h"
#include "model/tokenizer/added_tokens.h"

namespace tessera::model {
namespace {

// The rules of one call of Encode.
struct RenderState {
  bool thinking = false;
  bool drop_thinking = false;  // false as soon as tools are defined
  int last_user = -1;
};

class V4Encoding final : public DsmlEncoding {
 public:
  using DsmlEncoding::DsmlEncoding;

  absl::StatusOr<EncodedChat> Encode(const std::vector<ChatMessage>& messages,
                                     const ChatOptions& options) const override {
    TESSERA_ASSIGN_OR_RETURN(std::vector<Turn> turns, MakeTurns(messages));
    std::vector<Attachments> attachments(turns.size());
    RenderState state{.thinking = options.thinking,
                      .drop_thinking = options.drop_thinking};
    for (size_t i = 0; i < turns.size(); ++i) {
      if (turns[i].role == TurnRole::kSystem || turns[i].role == TurnRole::kDeveloper) {
        TESSERA_ASSIGN_OR_RETURN(attachments[i], ParseAttachments(*turns[i].message));
        state.drop_thinking = state.drop_thinking && attachments[i].functions.empty();
      }
    }
    if (state.thinking && state.drop_thinking) {
      DropOldTurns(&turns, &attachments);
    }
    state.last_user = LastUserTurn(turns, generation().turn_rules);
    PromptWriter writer = NewWriter();
    writer.Own(kBosToken);
    TESSERA_RETURN_IF_ERROR(WriteEffort(options, &writer));
    for (size_t i = 0; i < turns.size(); ++i) {
      WriteTurn(turns, i, attachments[i], state, &writer);
      if (i + 1 < turns.size() || options.add_generation_prompt) {
        WriteTransition(turns, i, state, &writer);
      }
    }
    return writer.Finish();
  }

 private:
  // What stands before the first turn.
  absl::Status WriteEffort(const ChatOptions& options, PromptWriter* writer) const {
    TESSERA_ASSIGN_OR_RETURN(
        const std::string text,
        EffortText(generation(), options.effort, options.effort_number));
    if (options.thinking && !text.empty()) {
      writer->Own(generation().system_token);
      writer->Own(text);
    }
    return absl::OkStatus();
  }

  // Developer turns go, with what was attached to them.
  void DropOldTurns(std::vector<Turn>* turns,
                    std::vector<Attachments>* attachments) const {
    std::vector<Turn> kept = *turns;
    DropOldDeveloperTurns(generation().turn_rules, &kept);
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
        // In thinking mode the first one follows the effort, after a token of its own.
        if (idx > 0 || !state.thinking) {
          writer->Own(generation().system_token);
        }
        writer->Untrusted(turn.message->content);
        WriteAttachments(tools_text(), attachments, writer);
        break;
      case TurnRole::kDeveloper:
        writer->Own(kUserToken);
        writer->Untrusted(turn.message->content);
        WriteAttachments(tools_text(), attachments, writer);
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
      WriteToolCalls(tags(), message.tool_calls, writer);
    }
    if (!message.without_eos) {
      writer->Own(kEosToken);
    }
  }

  // Opens the assistant's turn after `turns[idx]`, where one follows or is to be
  // generated.
  void WriteTransition(const std::vector<Turn>& turns, size_t idx,
                       const RenderState& state, PromptWriter* writer) const {
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
    // In V4, a system turn opens one for an assistant only: a reminder after it belongs
    // to the prompt. In V4.1, one that is not the first opens one as a user turn does.
    const bool system_opens = generation().turn_rules.late_system_opens_turn
                                  ? idx > 0
                                  : next == TurnRole::kAssistant;
    const bool opens = turn.role == TurnRole::kUser ||
                       turn.role == TurnRole::kDeveloper ||
                       (turn.role == TurnRole::kSystem && system_opens);
    if (!opens) {
      return;
    }
    const bool thinks = state.thinking && (!state.drop_thinking ||
                                           static_cast<int>(idx) >= state.last_user);
    writer->Own(kAssistantToken);
    writer->Own(thinks ? kThinkToken : kEndThinkToken);
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<ChatEncoding>> CreateV4Encoding(
    const EncodingGeneration& generation, const Tokenizer* tokenizer) {
  std::vector<std::string_view> texts = {
      kBosToken,   kEosToken,      kUserToken, kAssistantToken,
      kThinkToken, kEndThinkToken, kDsmlToken, kLatestReminderToken};
  texts.insert(texts.end(), TaskTokens().begin(), TaskTokens().end());
  if (!generation.system_token.empty()) {
    texts.push_back(generation.system_token);
  }
  TESSERA_ASSIGN_OR_RETURN(const std::vector<AddedToken> tokens,
                           FindControlTokens(*tokenizer, texts));
  return std::make_unique<V4Encoding>(generation, tokenizer, tokens);
}

}  // namespace tessera::model
