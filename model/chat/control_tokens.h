// The control tokens that the chat encodings write, and where a tokenizer has them. Text
// of users never becomes one of these (prompt_writer.h).
#ifndef TESSERA_MODEL_CHAT_CONTROL_TOKENS_H_
#define TESSERA_MODEL_CHAT_CONTROL_TOKENS_H_

#include <span>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "model/tokenizer/added_tokens.h"
#include "model/tokenizer/tokenizer.h"

namespace tessera::model {

// All families.
inline constexpr std::string_view kBosToken = "<｜begin▁of▁sentence｜>";
inline constexpr std::string_view kEosToken = "<｜end▁of▁sentence｜>";
inline constexpr std::string_view kUserToken = "<｜User｜>";
inline constexpr std::string_view kAssistantToken = "<｜Assistant｜>";

// R1 and later.
inline constexpr std::string_view kThinkToken = "<think>";
inline constexpr std::string_view kEndThinkToken = "</think>";

// V3.2 and later.
inline constexpr std::string_view kDsmlToken = "｜DSML｜";

// V4 and later.
inline constexpr std::string_view kLatestReminderToken = "<｜latest_reminder｜>";

// V4.1.
inline constexpr std::string_view kSystemToken = "<｜System｜>";

// V3, R1, V3.1; in V3.1 alone, the search tokens.
inline constexpr std::string_view kCallsBeginToken = "<｜tool▁calls▁begin｜>";
inline constexpr std::string_view kCallsEndToken = "<｜tool▁calls▁end｜>";
inline constexpr std::string_view kCallBeginToken = "<｜tool▁call▁begin｜>";
inline constexpr std::string_view kCallEndToken = "<｜tool▁call▁end｜>";
inline constexpr std::string_view kOutputsBeginToken = "<｜tool▁outputs▁begin｜>";
inline constexpr std::string_view kOutputsEndToken = "<｜tool▁outputs▁end｜>";
inline constexpr std::string_view kOutputBeginToken = "<｜tool▁output▁begin｜>";
inline constexpr std::string_view kOutputEndToken = "<｜tool▁output▁end｜>";
inline constexpr std::string_view kSepToken = "<｜tool▁sep｜>";
inline constexpr std::string_view kSearchBeginToken = "<｜search▁begin｜>";

// The control token of a task ("action", "query", ...); empty for a name that is none.
std::string_view TaskToken(std::string_view task);

// Those of all tasks.
std::span<const std::string_view> TaskTokens();

// `texts` with their ids. kInvalidArgument names the first that the tokenizer lacks.
absl::StatusOr<std::vector<AddedToken>> FindControlTokens(
    const Tokenizer& tokenizer, std::span<const std::string_view> texts);

// kInvalidArgument if `text`, a part of a generated turn, spells one of `tokens`: in a
// well-formed turn these stand only where the grammar puts them.
absl::Status RefuseControlTokens(std::string_view part, std::string_view text,
                                 std::span<const std::string_view> tokens);

}  // namespace tessera::model

#endif  // TESSERA_MODEL_CHAT_CONTROL_TOKENS_H_
