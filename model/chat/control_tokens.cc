#include "model/chat/control_tokens.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "common/status.h"

namespace tessera::model {
namespace {

// Side by side: the token of kTaskNames[i] is kTaskTokens[i].
constexpr std::array<std::string_view, 6> kTaskNames = {"action", "query", "authority",
                                                        "domain", "title", "read_url"};
constexpr std::array<std::string_view, 6> kTaskTokens = {
    "<｜action｜>", "<｜query｜>", "<｜authority｜>",
    "<｜domain｜>", "<｜title｜>", "<｜read_url｜>"};

}  // namespace

std::string_view TaskToken(std::string_view task) {
  for (size_t i = 0; i < kTaskNames.size(); ++i) {
    if (kTaskNames[i] == task) {
      return kTaskTokens[i];
    }
  }
  return {};
}

std::span<const std::string_view> TaskTokens() { return kTaskTokens; }

absl::StatusOr<std::vector<AddedToken>> FindControlTokens(
    const Tokenizer& tokenizer, std::span<const std::string_view> texts) {
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

absl::Status RefuseControlTokens(std::string_view part, std::string_view text,
                                 std::span<const std::string_view> tokens) {
  for (const std::string_view token : tokens) {
    if (text.find(token) != std::string_view::npos) {
      return InvalidArgumentF("{} contains the control token `{}`", part, token);
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera::model
