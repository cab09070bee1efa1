// ChatSession: one conversation with a server: what is typed becomes a command or a
// message, and the reply streams out.
//
// It stands between `tessera chat`, which reads the lines, and OpenAiClient. It knows
// nothing of descriptors and signals.
#ifndef TESSERA_CLI_CLIENT_CHAT_SESSION_H_
#define TESSERA_CLI_CLIENT_CHAT_SESSION_H_

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/client/openai_client.h"

namespace tessera::cli {

struct ChatSessionOptions {
  std::string model = {};
  std::string system = {};            // Empty: none.
  std::optional<bool> thinking = {};  // Unset: as the server likes.
  std::optional<int64_t> max_tokens = {};
  std::optional<double> temperature = {};
  std::optional<double> top_p = {};
  std::optional<int64_t> seed = {};
  // Dims the reasoning and keeps control characters of the reply off the terminal;
  // without it the reply's text comes out as it is, and no reasoning.
  bool terminal = false;
};

// Borrows the client and the streams. External synchronisation.
class ChatSession {
 public:
  ChatSession(const ChatSessionOptions& options, OpenAiClient* client, std::ostream* out,
              std::ostream* notes)
      : options_(options), client_(client), out_(out), notes_(notes) {}

  // Runs a command, or sends a message and prints its reply on `out`; blocks until the
  // reply ends. False: /quit. An empty text does nothing. kCancelled: the reply was
  // stopped; what came of it stays in the conversation. Other errors are those of
  // OpenAiClient::Stream; the message is then forgotten, so that it can be sent again.
  absl::StatusOr<bool> Handle(const std::string& text);

  // The turns so far, without the system text.
  size_t num_messages() const { return messages_.size(); }

 private:
  struct Message {
    std::string role;
    std::string content;
  };

  bool RunCommand(std::string_view text);
  absl::Status Ask(const std::string& text);
  nlohmann::json RequestBody() const;
  void Print(std::string_view text);
  void PrintReasoning(std::string_view text);
  void EndReasoning();

  ChatSessionOptions options_;
  OpenAiClient* const client_;
  std::ostream* const out_;
  std::ostream* const notes_;  // Answers of commands.
  std::vector<Message> messages_;
  bool in_reasoning_ = false;
};

// `text` without the control characters that could move the cursor or change the
// terminal; line ends and tabs stay.
std::string ForTerminal(std::string_view text);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CLIENT_CHAT_SESSION_H_
