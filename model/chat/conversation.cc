#include "model/chat/conversation.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "model/chat/control_tokens.h"

namespace tessera::model {
namespace {

std::optional<TurnRole> RoleOf(std::string_view role) {
  if (role == "system") {
    return TurnRole::kSystem;
  }
  if (role == "developer") {
    return TurnRole::kDeveloper;
  }
  if (role == "user" || role == "tool") {
    return TurnRole::kUser;
  }
  if (role == "assistant") {
    return TurnRole::kAssistant;
  }
  if (role == "latest_reminder") {
    return TurnRole::kLatestReminder;
  }
  return std::nullopt;
}

// Ids of an assistant message's calls and their places. A map, since a request may hold
// as many calls and results as its size allows.
class CallOrder {
 public:
  CallOrder() = default;
  explicit CallOrder(const std::vector<ToolCall>& calls) : is_empty_(calls.empty()) {
    for (size_t i = 0; i < calls.size(); ++i) {
      if (!calls[i].id.empty()) {
        places_.emplace(calls[i].id, i);
      }
    }
  }

  bool is_empty() const { return is_empty_; }
  std::optional<size_t> Place(std::string_view id) const {
    const auto it = places_.find(absl::string_view(id.data(), id.size()));
    return it == places_.end() ? std::nullopt : std::optional<size_t>(it->second);
  }

 private:
  bool is_empty_ = true;
  absl::flat_hash_map<absl::string_view, size_t> places_;
};

absl::Status CheckToolMessage(const ChatMessage& message, const CallOrder& calls) {
  if (calls.is_empty()) {
    return InvalidArgumentF("tool message for `{}` follows no tool call",
                            message.tool_call_id);
  }
  if (!message.tool_call_id.empty() && !calls.Place(message.tool_call_id).has_value()) {
    return InvalidArgumentF(
        "tool message for `{}`, which is no call of the assistant message "
        "before it",
        message.tool_call_id);
  }
  return absl::OkStatus();
}

void AppendUserMessage(const ChatMessage& message, std::vector<Turn>* turns) {
  const bool is_tool = message.role == "tool";
  const bool after_user = !turns->empty() && turns->back().role == TurnRole::kUser;
  // A task closes its turn for further text. A result joins it all the same, and the task
  // of a message that joins an earlier one is not kept: both as in the published encoder.
  if (!after_user || (!is_tool && !turns->back().task.empty())) {
    turns->push_back(
        {.role = TurnRole::kUser, .message = &message, .task = message.task});
  }
  turns->back().blocks.push_back({.is_tool_result = is_tool,
                                  .text = message.content,
                                  .tool_call_id = message.tool_call_id});
}

// Sorts the results among the places that results have; texts keep theirs. A result
// without an id counts as the first call's.
void SortToolResults(const CallOrder& calls, Turn* turn) {
  std::vector<TurnBlock> results;
  std::copy_if(turn->blocks.begin(), turn->blocks.end(), std::back_inserter(results),
               [](const TurnBlock& block) { return block.is_tool_result; });
  std::stable_sort(results.begin(), results.end(),
                   [&calls](const TurnBlock& a, const TurnBlock& b) {
                     return calls.Place(a.tool_call_id).value_or(0) <
                            calls.Place(b.tool_call_id).value_or(0);
                   });
  size_t next = 0;
  for (TurnBlock& block : turn->blocks) {
    if (block.is_tool_result) {
      block = results[next++];
    }
  }
}

bool IsUsers(const Turn& turn, size_t idx, const TurnRules& rules) {
  switch (turn.role) {
    case TurnRole::kDeveloper:
      return true;
    case TurnRole::kUser:
      return !rules.results_continue_turn ||
             std::any_of(turn.blocks.begin(), turn.blocks.end(),
                         [](const TurnBlock& block) { return !block.is_tool_result; });
    case TurnRole::kSystem:
      return rules.late_system_opens_turn && idx > 0;
    case TurnRole::kAssistant:
    case TurnRole::kLatestReminder:
      return false;
  }
  return false;
}

}  // namespace

absl::StatusOr<std::vector<Turn>> MakeTurns(const std::vector<ChatMessage>& messages) {
  if (messages.empty()) {
    return InvalidArgumentF("no messages, expected at least one");
  }
  std::vector<Turn> turns;
  CallOrder calls;  // of the last assistant message
  const auto close_results = [&turns, &calls] {
    if (!turns.empty() && turns.back().role == TurnRole::kUser) {
      SortToolResults(calls, &turns.back());
    }
  };
  for (const ChatMessage& message : messages) {
    const std::optional<TurnRole> role = RoleOf(message.role);
    if (!role.has_value()) {
      return InvalidArgumentF(
          "message role `{}`, expected system, developer, user, assistant, "
          "tool or latest_reminder",
          message.role);
    }
    if (!message.task.empty() && TaskToken(message.task).empty()) {
      return InvalidArgumentF("message task `{}` is unknown", message.task);
    }
    if (message.role == "tool") {
      TESSERA_RETURN_IF_ERROR(CheckToolMessage(message, calls));
    }
    if (*role == TurnRole::kUser) {
      AppendUserMessage(message, &turns);
      continue;
    }
    close_results();
    if (*role == TurnRole::kAssistant) {
      calls = CallOrder(message.tool_calls);
    }
    turns.push_back({.role = *role, .message = &message});
  }
  close_results();
  return turns;
}

int LastUserTurn(const std::vector<Turn>& turns, const TurnRules& rules) {
  for (size_t i = turns.size(); i > 0; --i) {
    if (IsUsers(turns[i - 1], i - 1, rules)) {
      return static_cast<int>(i) - 1;
    }
  }
  return -1;
}

void DropOldDeveloperTurns(const TurnRules& rules, std::vector<Turn>* turns) {
  const int last_user = LastUserTurn(*turns, rules);
  std::vector<Turn> kept;
  for (size_t i = 0; i < turns->size(); ++i) {
    const bool is_old = static_cast<int>(i) < last_user;
    if (!is_old || (*turns)[i].role != TurnRole::kDeveloper) {
      kept.push_back(std::move((*turns)[i]));
    }
  }
  *turns = std::move(kept);
}

}  // namespace tessera::model
