// What a request says about thinking, in the spellings of every dialect: a switch, an
// effort by name or by number. Reads JSON values and settles them into ChatOptions.
#ifndef TESSERA_COORDINATOR_API_CHAT_THINKING_FIELDS_H_
#define TESSERA_COORDINATOR_API_CHAT_THINKING_FIELDS_H_

#include <cstdint>
#include <optional>
#include <string_view>

#include "nlohmann/json_fwd.hpp"

#include "coordinator/api/errors.h"
#include "model/chat/chat_encoding.h"

namespace tessera::coordinator {

// Absent parts are the server's choice.
struct ThinkingRequest {
  std::optional<bool> thinking;
  std::optional<model::ReasoningEffort> effort;
  int32_t effort_number = 0;  // beside an effort that is not kNone; 0: none
};

// An effort: one of the names of OpenAI and DeepSeek, or a number for models that are
// trained with numbers. null is as if it were absent. `field` is named in errors.
std::optional<ApiError> ReadEffort(std::string_view field, const nlohmann::json& value,
                                   const model::ChatTraits& traits, ThinkingRequest* out);

// {"type": "enabled" | "disabled"}, and "adaptive" where Anthropic's clients leave the
// choice to the model, which here always thinks then. A budget_tokens must be a positive
// number; no model of these families knows budgets, so it has no effect.
std::optional<ApiError> ReadThinkingObject(const nlohmann::json& thinking,
                                           ThinkingRequest* out);

// An effort alone asks for thinking; a plain yes or no wins over it; `default_thinking`
// where nothing is said.
void SettleThinking(const ThinkingRequest& read, bool default_thinking,
                    model::ChatOptions* options);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_CHAT_THINKING_FIELDS_H_
