#include "coordinator/api/chat/thinking_fields.h"

#include <algorithm>
#include <iterator>
#include <string>

#include "nlohmann/json.hpp"

#include "coordinator/api/json_fields.h"

namespace tessera::coordinator {
namespace {

using model::ReasoningEffort;
using nlohmann::json;

// A number, for models that are trained with numbers.
std::optional<ApiError> ParseEffortNumber(std::string_view field, int64_t number,
                                          const model::ChatTraits& traits,
                                          ThinkingRequest* out) {
  constexpr int64_t kMaxNumber = 100;
  if (!traits.has_effort_numbers) {
    return UnsupportedError(
        field, "this model knows efforts by name only: none, low, high and max");
  }
  if (number < 1 || number > kMaxNumber) {
    return BadRequestError(field, "reasoning_effort must be a name or 1 to 100");
  }
  out->effort = ReasoningEffort::kHigh;
  out->effort_number = static_cast<int32_t>(number);
  return std::nullopt;
}

// The efforts of OpenAI and of DeepSeek on the three that models are trained with.
std::optional<ApiError> ParseEffortName(std::string_view field, std::string_view name,
                                        ThinkingRequest* out) {
  struct Row {
    std::string_view name;
    ReasoningEffort effort;
  };
  static constexpr Row kRows[] = {
      {"none", ReasoningEffort::kNone}, {"minimal", ReasoningEffort::kLow},
      {"low", ReasoningEffort::kLow},   {"medium", ReasoningEffort::kHigh},
      {"high", ReasoningEffort::kHigh}, {"xhigh", ReasoningEffort::kHigh},
      {"max", ReasoningEffort::kMax},   {"ultra", ReasoningEffort::kMax},
  };
  const auto* row = std::find_if(std::begin(kRows), std::end(kRows),
                                 [&](const Row& r) { return r.name == name; });
  if (row == std::end(kRows)) {
    return BadRequestError(
        field,
        "reasoning_effort must be none, minimal, low, medium, high, xhigh, "
        "max or ultra");
  }
  out->effort = row->effort;
  out->effort_number = 0;
  return std::nullopt;
}

}  // namespace

std::optional<ApiError> ReadEffort(std::string_view field, const json& value,
                                   const model::ChatTraits& traits,
                                   ThinkingRequest* out) {
  if (value.is_null()) {
    return std::nullopt;
  }
  if (value.is_string()) {
    return ParseEffortName(field, value.get_ref<const std::string&>(), out);
  }
  const std::optional<int64_t> number = JsonInteger(value);
  if (!number.has_value()) {
    return BadRequestError(field, "reasoning_effort must be a name or a whole number");
  }
  return ParseEffortNumber(field, *number, traits, out);
}

std::optional<ApiError> ReadThinkingObject(const json& thinking, ThinkingRequest* out) {
  FieldError error;
  JsonFields fields(thinking, &error, "thinking.");
  const auto budget = fields.Integer("budget_tokens");
  if (!fields.ok()) {
    return FromFieldError(error);
  }
  if (budget.value_or(1) < 1) {
    return BadRequestError("thinking.budget_tokens",
                           "thinking.budget_tokens must be at least 1");
  }
  const auto type = thinking.find("type");
  if (type != thinking.end() && (*type == "enabled" || *type == "adaptive")) {
    out->thinking = true;
    return std::nullopt;
  }
  if (type != thinking.end() && *type == "disabled") {
    out->thinking = false;
    return std::nullopt;
  }
  return BadRequestError("thinking.type",
                         "thinking.type must be enabled, adaptive or disabled");
}

void SettleThinking(const ThinkingRequest& read, bool default_thinking,
                    model::ChatOptions* options) {
  const bool effort_asks =
      read.effort.value_or(ReasoningEffort::kNone) != ReasoningEffort::kNone;
  options->thinking =
      read.thinking.value_or(read.effort.has_value() ? effort_asks : default_thinking);
  options->effort = !options->thinking ? ReasoningEffort::kNone
                    : effort_asks      ? *read.effort
                                       : ReasoningEffort::kHigh;
  options->effort_number = options->thinking ? read.effort_number : 0;
}

}  // namespace tessera::coordinator
