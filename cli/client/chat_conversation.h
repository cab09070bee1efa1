// ChatConversation: what has been said and how to ask next: messages, system text and
// sampling, as the body of a request and as a file.
//
// It stands under ChatSession, which runs commands and prints. It sends nothing.
#ifndef TESSERA_CLI_CLIENT_CHAT_CONVERSATION_H_
#define TESSERA_CLI_CLIENT_CHAT_CONVERSATION_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "nlohmann/json_fwd.hpp"

namespace tessera::cli {

// How to ask; what is unset is as the server likes.
struct ChatSettings {
  std::string model = {};
  std::string system = {};  // Empty: none.
  std::optional<bool> thinking = {};
  std::optional<int64_t> max_tokens = {};
  std::optional<double> temperature = {};
  std::optional<double> top_p = {};
  std::optional<int64_t> seed = {};
};

// External synchronisation.
class ChatConversation {
 public:
  explicit ChatConversation(ChatSettings settings) : settings_(std::move(settings)) {}

  ChatSettings* settings() { return &settings_; }
  size_t num_messages() const { return messages_.size(); }

  // A request's body for a reply to the last message.
  nlohmann::json RequestBody() const;

  void AddUser(std::string text) { messages_.push_back({"user", std::move(text)}); }
  void AddReply(std::string text) { messages_.push_back({"assistant", std::move(text)}); }
  void Clear() { messages_.clear(); }

  // Takes the last user's message and what follows it away, and returns its text; nothing
  // when there is none.
  std::optional<std::string> TakeLastQuestion();

  // `name` as in a request: temperature, top_p, max_tokens, seed; "default" unsets it.
  // kInvalidArgument: another name, or a value out of its range.
  absl::Status Set(std::string_view name, const std::string& value);

  // Messages and system text as JSON, readable by its owner alone; Load replaces both.
  // kUnavailable: the file cannot be written or read; kInvalidArgument: it holds no
  // conversation, and nothing changed.
  absl::Status Save(const std::string& path) const;
  absl::Status Load(const std::string& path);

 private:
  struct Message {
    std::string role;
    std::string content;
  };

  nlohmann::json Messages() const;

  ChatSettings settings_;
  std::vector<Message> messages_;
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CLIENT_CHAT_CONVERSATION_H_
