#include "cli/client/chat_conversation.h"

#include <fstream>
#include <sstream>
#include <utility>

#include "nlohmann/json.hpp"
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/option_value.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::cli {
namespace {

using nlohmann::json;

// A file of a conversation is read whole.
constexpr std::streamsize kMaxFileBytes = std::streamsize{16} << 20;

// `value` as a T inside the bounds, or unset for "default".
template <typename T>
absl::Status SetNumber(const std::string& value, T min, T max, std::optional<T>* field) {
  if (value == "default") {
    field->reset();
    return absl::OkStatus();
  }
  T number = {};
  TESSERA_RETURN_IF_ERROR(ParseOption(value, &number));
  if (!(number >= min && number <= max)) {
    return InvalidArgumentF("{} is not between {} and {}", value, min, max);
  }
  *field = number;
  return absl::OkStatus();
}

bool IsMessage(const json& message) {
  return message.is_object() && message.contains("role") && message["role"].is_string() &&
         message.contains("content") && message["content"].is_string();
}

}  // namespace

json ChatConversation::Messages() const {
  json messages = json::array();
  if (!settings_.system.empty()) {
    messages.push_back({{"role", "system"}, {"content", settings_.system}});
  }
  for (const Message& message : messages_) {
    messages.push_back({{"role", message.role}, {"content", message.content}});
  }
  return messages;
}

json ChatConversation::RequestBody() const {
  json body = {{"model", settings_.model}, {"messages", Messages()}};
  // The numbers of a reply come at its end.
  body["stream_options"] = {{"include_usage", true}};
  if (settings_.thinking.has_value()) {
    body["chat_template_kwargs"] = {{"thinking", *settings_.thinking}};
  }
  if (settings_.max_tokens.has_value()) {
    body["max_tokens"] = *settings_.max_tokens;
  }
  if (settings_.temperature.has_value()) {
    body["temperature"] = *settings_.temperature;
  }
  if (settings_.top_p.has_value()) {
    body["top_p"] = *settings_.top_p;
  }
  if (settings_.seed.has_value()) {
    body["seed"] = *settings_.seed;
  }
  return body;
}

std::optional<std::string> ChatConversation::TakeLastQuestion() {
  for (size_t i = messages_.size(); i > 0; --i) {
    if (messages_[i - 1].role == "user") {
      std::string text = std::move(messages_[i - 1].content);
      messages_.resize(i - 1);
      return text;
    }
  }
  return std::nullopt;
}

absl::Status ChatConversation::Set(std::string_view name, const std::string& value) {
  if (name == "temperature") {
    return SetNumber(value, 0.0, 2.0, &settings_.temperature);
  }
  if (name == "top_p") {
    return SetNumber(value, 0.0, 1.0, &settings_.top_p);
  }
  if (name == "max_tokens") {
    return SetNumber(value, int64_t{1}, int64_t{1} << 40, &settings_.max_tokens);
  }
  if (name == "seed") {
    return SetNumber(value, int64_t{0}, INT64_MAX, &settings_.seed);
  }
  return InvalidArgumentF("{} is none of temperature, top_p, max_tokens, seed", name);
}

absl::Status ChatConversation::Save(const std::string& path) const {
  const std::string text = json({{"messages", Messages()}})
                               .dump(2, ' ', false, json::error_handler_t::replace) +
                           "\n";
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file < 0) {
    return UnavailableF("cannot write {}", path);
  }
  const ssize_t written = ::write(file, text.data(), text.size());
  const bool closed = ::close(file) == 0;
  if (!closed || written != static_cast<ssize_t>(text.size())) {
    return UnavailableF("cannot write all of {}", path);
  }
  return absl::OkStatus();
}

absl::Status ChatConversation::Load(const std::string& path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) {
    return UnavailableF("cannot read {}", path);
  }
  if (file.tellg() > kMaxFileBytes) {
    return InvalidArgumentF("{} is larger than {} bytes", path, kMaxFileBytes);
  }
  file.seekg(0);
  std::ostringstream text;
  text << file.rdbuf();
  const json body = json::parse(text.str(), nullptr, false);
  if (!body.is_object() || !body.contains("messages") || !body["messages"].is_array()) {
    return InvalidArgumentF("{} holds no messages", path);
  }
  std::string system;
  std::vector<Message> messages;
  for (const json& message : body["messages"]) {
    if (!IsMessage(message)) {
      return InvalidArgumentF("{} holds something else than messages of text", path);
    }
    if (message["role"] == "system") {
      system = message["content"];
    } else {
      messages.push_back({message["role"], message["content"]});
    }
  }
  settings_.system = std::move(system);
  messages_ = std::move(messages);
  return absl::OkStatus();
}

}  // namespace tessera::cli
