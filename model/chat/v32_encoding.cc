#include "model/chat/v32_encoding.h"

#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "common/status.h"
#include "common/status_macros.h"
#include "model/chat/attachments.h"
#include "model/chat/control_tokens.h"
#include "model/chat/dsml.h"
#include "model/chat/dsml_encoding.h"
#include "model/chat/prompt_writer.h"
#include "model/tokenizer/added_tokens.h"

namespace tessera::model {
namespace {

constexpr std::string_view kBeforeDeveloperText = "\n\n# The user's message is: ";

enum class Role { kSystem, kDeveloper, kUser, kAssistant, kTool };

absl::StatusOr<Role> RoleOf(std::string_view role) {
  constexpr std::pair<std::string_view, Role> kRoles[] = {
      {"system", Role::kSystem}, {"developer", Role::kDeveloper},
      {"user", Role::kUser},     {"assistant", Role::kAssistant},
      {"tool", Role::kTool},
  };
  for (const auto& [name, value] : kRoles) {
    if (name == role) {
      return value;
    }
  }
  return InvalidArgumentF(
      "message role `{}`, expected system, developer, user, assistant or tool", role);
}

struct Entry {
  Role role = Role::kUser;
  const ChatMessage* message = nullptr;
  Attachments attachments{};     // kSystem, kDeveloper
  bool is_first_result = false;  // kTool: of its group
  bool is_last_result = false;
};

bool IsUsers(const Entry& entry) {
  return entry.role == Role::kUser || entry.role == Role::kDeveloper;
}

int LastUser(const std::vector<Entry>& entries) {
  int last = -1;
  for (size_t i = 0; i < entries.size(); ++i) {
    last = IsUsers(entries[i]) ? static_cast<int>(i) : last;
  }
  return last;
}

// Results follow the message with their calls, at most one for each. (The published
// encoder leaves a group open that lacks results; here every group is closed.)
absl::Status MarkResults(std::vector<Entry>* entries) {
  size_t num_left = 0;
  for (size_t i = 0; i < entries->size(); ++i) {
    Entry& entry = (*entries)[i];
    if (entry.role != Role::kTool) {
      num_left = entry.role == Role::kAssistant ? entry.message->tool_calls.size() : 0;
      continue;
    }
    if (num_left == 0) {
      return InvalidArgumentF("tool message for `{}` follows no tool call",
                              entry.message->tool_call_id);
    }
    --num_left;
    entry.is_first_result = (*entries)[i - 1].role != Role::kTool;
    entry.is_last_result =
        i + 1 == entries->size() || (*entries)[i + 1].role != Role::kTool;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Entry>> ReadMessages(const std::vector<ChatMessage>& messages,
                                                const ChatOptions& options) {
  if (messages.empty()) {
    return InvalidArgumentF("no messages, expected at least one");
  }
  std::vector<Entry> all;
  for (const ChatMessage& message : messages) {
    TESSERA_ASSIGN_OR_RETURN(const Role role, RoleOf(message.role));
    all.push_back({.role = role, .message = &message});
    if (role == Role::kSystem || role == Role::kDeveloper) {
      TESSERA_ASSIGN_OR_RETURN(all.back().attachments, ParseAttachments(message));
    }
  }
  TESSERA_RETURN_IF_ERROR(MarkResults(&all));
  if (!options.thinking || !options.drop_thinking) {
    return all;
  }
  const int last_user = LastUser(all);
  std::vector<Entry> kept;
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i].role != Role::kDeveloper || static_cast<int>(i) >= last_user) {
      kept.push_back(std::move(all[i]));
    }
  }
  return kept;
}

class V32Encoding final : public DsmlEncoding {
 public:
  using DsmlEncoding::DsmlEncoding;

  absl::StatusOr<EncodedChat> Encode(const std::vector<ChatMessage>& messages,
                                     const ChatOptions& options) const override {
    TESSERA_RETURN_IF_ERROR(
        EffortText(generation(), options.effort, options.effort_number).status());
    TESSERA_ASSIGN_OR_RETURN(const std::vector<Entry> entries,
                             ReadMessages(messages, options));
    const int last_user = LastUser(entries);
    PromptWriter writer = NewWriter();
    writer.Own(kBosToken);
    for (size_t i = 0; i < entries.size(); ++i) {
      const bool is_last = i + 1 == entries.size();
      const bool opens_turn = !is_last || options.add_generation_prompt;
      // Reasoning stands in the turns after the last user message alone.
      const bool thinks = options.thinking && static_cast<int>(i) >= last_user;
      switch (entries[i].role) {
        case Role::kSystem:
          writer.Untrusted(entries[i].message->content);
          WriteAttachments(tools_text(), entries[i].attachments, &writer);
          break;
        case Role::kDeveloper:
        case Role::kUser:
          WriteUser(entries[i], &writer);
          WriteOpening(kAssistantToken, thinks, opens_turn, &writer);
          break;
        case Role::kTool:
          WriteResult(entries[i], &writer);
          if (entries[i].is_last_result) {
            WriteOpening("\n\n", thinks, opens_turn, &writer);
          }
          break;
        case Role::kAssistant:
          // The published encoder ends every turn; one that is to be continued, which it
          // does not know, stays open.
          TESSERA_RETURN_IF_ERROR(WriteAssistant(*entries[i].message, thinks, &writer));
          if (opens_turn || !entries[i].message->without_eos) {
            writer.Own(kEosToken);
          }
          break;
      }
    }
    return writer.Finish();
  }

 private:
  void WriteUser(const Entry& entry, PromptWriter* writer) const {
    writer->Own(kUserToken);
    if (entry.role == Role::kDeveloper) {
      WriteAttachments(tools_text(), entry.attachments, writer);
      writer->Own(kBeforeDeveloperText);
    }
    writer->Untrusted(entry.message->content);
  }

  static void WriteOpening(std::string_view before, bool thinks, bool opens_turn,
                           PromptWriter* writer) {
    if (opens_turn) {
      writer->Own(before);
      writer->Own(thinks ? kThinkToken : kEndThinkToken);
    }
  }

  static void WriteResult(const Entry& entry, PromptWriter* writer) {
    writer->Own(entry.is_first_result ? "\n\n<function_results>" : "");
    writer->Own("\n<result>");
    writer->Untrusted(entry.message->content);
    writer->Own("</result>");
    writer->Own(entry.is_last_result ? "\n</function_results>" : "");
  }

  absl::Status WriteAssistant(const ChatMessage& message, bool has_reasoning,
                              PromptWriter* writer) const {
    if (has_reasoning) {
      if (message.reasoning_content.empty() && message.tool_calls.empty()) {
        return InvalidArgumentF(
            "assistant message after the last user message has neither reasoning nor "
            "tool calls, which thinking mode wants");
      }
      // <think> itself was written with the message before.
      writer->Untrusted(message.reasoning_content);
      writer->Own(kEndThinkToken);
    }
    writer->Untrusted(message.content);
    if (!message.tool_calls.empty()) {
      writer->Own("\n\n");
      WriteToolCalls(tags(), message.tool_calls, writer);
    }
    return absl::OkStatus();
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<ChatEncoding>> CreateV32Encoding(
    const EncodingGeneration& generation, const Tokenizer* tokenizer) {
  std::vector<std::string_view> texts = {kBosToken,       kEosToken,   kUserToken,
                                         kAssistantToken, kThinkToken, kEndThinkToken};
  if (tokenizer->TokenId(kDsmlToken).has_value()) {
    texts.push_back(kDsmlToken);
  }
  TESSERA_ASSIGN_OR_RETURN(const std::vector<AddedToken> tokens,
                           FindControlTokens(*tokenizer, texts));
  return std::make_unique<V32Encoding>(generation, tokenizer, tokens);
}

}  // namespace tessera::model
