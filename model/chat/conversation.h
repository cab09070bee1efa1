// Conversation: the messages of a request in the shape that V4 and V4.1 render.
// There is no tool role in V4: results are blocks of a user turn, beside its texts.
#ifndef TESSERA_MODEL_CHAT_CONVERSATION_H_
#define TESSERA_MODEL_CHAT_CONVERSATION_H_

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "model/chat/chat_encoding.h"

namespace tessera::model {

enum class TurnRole { kSystem, kDeveloper, kUser, kAssistant, kLatestReminder };

// Part of a user turn: a text, or the result of a tool call.
struct TurnBlock {
  bool is_tool_result = false;
  std::string_view text{};
  std::string_view tool_call_id{};
};

// Points into the messages it was made from, which must outlive it.
struct Turn {
  TurnRole role = TurnRole::kUser;
  const ChatMessage* message =
      nullptr;                      // the message, or the first of those that were merged
  std::vector<TurnBlock> blocks{};  // kUser only
  std::string_view task{};          // kUser only: a task token's name, or empty
};

// Merges tool messages and consecutive user messages into user turns, and puts the
// results of a turn into the order of the calls that they answer. kInvalidArgument: no
// messages, an unknown role or task, a tool message that answers no call of the assistant
// message before it.
absl::StatusOr<std::vector<Turn>> MakeTurns(const std::vector<ChatMessage>& messages);

// Which turns count as the user's.
struct TurnRules {
  bool late_system_opens_turn = false;  // V4.1: a system turn that is not the first does
  bool results_continue_turn = false;   // V4.1: one of tool results alone does not
};

// Index of the last user or developer turn; -1 if there is none.
int LastUserTurn(const std::vector<Turn>& turns, const TurnRules& rules);

// Removes the developer turns before the last user or developer turn. (The reasoning that
// is dropped with them is left out when an assistant turn is rendered.)
void DropOldDeveloperTurns(const TurnRules& rules, std::vector<Turn>* turns);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CHAT_CONVERSATION_H_
