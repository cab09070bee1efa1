#include "cli/client/dataset_file.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <string_view>
#include <utility>

#include "nlohmann/json.hpp"

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::cli {
namespace {

using nlohmann::json;

constexpr std::streamoff kFileBytesMax = std::streamoff{2} << 30;
constexpr int64_t kBytesPerToken = 4;  // Of English text, for tokenizers of 100k entries.
constexpr int64_t kTokensMin = 4;
constexpr int64_t kPromptTokensMax = 1024;
constexpr int64_t kTokensMax = 2048;
constexpr int64_t kOutputTokensMax = int64_t{1} << 20;

absl::StatusOr<std::string> ReadWhole(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) {
    return StatusF(absl::StatusCode::kNotFound, "cannot read {}", path);
  }
  const std::streamoff size = file.tellg();
  if (size < 0 || size > kFileBytesMax) {
    return InvalidArgumentF("{} has {} bytes, expected at most {}", path, size,
                            kFileBytesMax);
  }
  std::string text(static_cast<size_t>(size), '\0');
  file.seekg(0);
  file.read(text.data(), size);
  return file ? absl::StatusOr<std::string>(std::move(text))
              : UnavailableF("reading {} failed", path);
}

const std::string* TextOf(const json& object, const char* key) {
  if (!object.is_object()) {
    return nullptr;
  }
  const auto it = object.find(key);
  return it != object.end() ? it->get_ptr<const std::string*>() : nullptr;
}

int64_t GuessTokens(const std::string& text) {
  return static_cast<int64_t>(text.size()) / kBytesPerToken;
}

}  // namespace

absl::StatusOr<std::vector<DatasetPrompt>> ReadShareGpt(
    const std::string& path, std::optional<int64_t> output_len) {
  TESSERA_ASSIGN_OR_RETURN(const std::string text, ReadWhole(path));
  const json conversations = json::parse(text, nullptr, false);
  if (!conversations.is_array()) {
    return InvalidArgumentF("{} is no JSON array of conversations", path);
  }
  std::vector<DatasetPrompt> prompts;
  for (const json& conversation : conversations) {
    const auto turns = conversation.is_object() ? conversation.find("conversations")
                                                : conversation.end();
    if (turns == conversation.end() || !turns->is_array() || turns->size() < 2) {
      continue;
    }
    const std::string* prompt = TextOf((*turns)[0], "value");
    const std::string* answer = TextOf((*turns)[1], "value");
    if (prompt == nullptr || answer == nullptr) {
      continue;
    }
    const int64_t input = GuessTokens(*prompt);
    const int64_t output = output_len.value_or(GuessTokens(*answer));
    if (input < kTokensMin || input > kPromptTokensMax || input + output > kTokensMax ||
        (!output_len.has_value() && output < kTokensMin)) {
      continue;
    }
    prompts.push_back({*prompt, output});
  }
  if (prompts.empty()) {
    return InvalidArgumentF("{} holds no conversation of {} to {} tokens", path,
                            kTokensMin, kTokensMax);
  }
  return prompts;
}

absl::StatusOr<std::vector<DatasetPrompt>> ReadCustomLines(
    const std::string& path, std::optional<int64_t> output_len) {
  TESSERA_ASSIGN_OR_RETURN(const std::string text, ReadWhole(path));
  std::vector<DatasetPrompt> prompts;
  std::string_view rest = text;
  for (int line_number = 1; !rest.empty(); ++line_number) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) {
      continue;
    }
    const json row = json::parse(line, nullptr, false);
    const std::string* prompt = TextOf(row, "prompt");
    if (prompt == nullptr || prompt->empty()) {
      return InvalidArgumentF("{}:{}: expected an object with a prompt", path,
                              line_number);
    }
    std::optional<int64_t> length = output_len;
    const auto stated = row.find("output_tokens");
    if (!length.has_value() && stated != row.end() && stated->is_number_integer()) {
      length = stated->get<int64_t>();
    }
    if (!length.has_value() || *length < 1 || *length > kOutputTokensMax) {
      return InvalidArgumentF(
          "{}:{}: expected output_tokens of 1 to {}, or a length for all", path,
          line_number, kOutputTokensMax);
    }
    prompts.push_back({*prompt, *length});
  }
  if (prompts.empty()) {
    return InvalidArgumentF("{} holds no prompt", path);
  }
  return prompts;
}

}  // namespace tessera::cli
