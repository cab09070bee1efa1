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

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/client/chat_conversation.h"
#include "cli/client/openai_client.h"

#include "common/clock.h"

namespace tessera::cli {

struct ChatSessionOptions {
  ChatSettings settings = {};
  // Keeps control characters of the reply off the terminal and shows the reasoning;
  // without it the reply's text comes out as it is, and nothing else.
  bool terminal = false;
  // Dims the reasoning and styles Markdown; only on a terminal.
  bool styled = false;
};

// Borrows the client, the streams and the clock. External synchronisation.
class ChatSession {
 public:
  ChatSession(const ChatSessionOptions& options, OpenAiClient* client, std::ostream* out,
              std::ostream* notes, Clock* clock)
      : options_(options),
        conversation_(options.settings),
        client_(client),
        out_(out),
        notes_(notes),
        clock_(clock) {}

  // Runs a command, or sends a message and prints its reply on `out`; blocks until the
  // reply ends. False: /quit. An empty text does nothing. kCancelled: the reply was
  // stopped; what came of it stays in the conversation. Other errors are those of
  // OpenAiClient::Stream; the message is then forgotten, so that it can be sent again
  // (/retry).
  absl::StatusOr<bool> Handle(const std::string& text);

  // The turns so far, without the system text.
  size_t num_messages() const { return conversation_.num_messages(); }

 private:
  // Of the last reply.
  struct Stats {
    absl::Duration first_token;
    absl::Duration total;
    int64_t prompt_tokens = 0;
    int64_t cached_tokens = 0;
    int64_t completion_tokens = 0;
    std::string finish_reason;
  };
  struct Command;

  absl::StatusOr<bool> RunCommand(std::string_view text);
  absl::Status Ask(const std::string& text);
  void TakeEnd(const nlohmann::json& chunk, Stats* stats) const;

  // The commands; each writes its answer to the notes.
  absl::Status Help(const std::string& rest);
  absl::Status Reset(const std::string& rest);
  absl::Status System(const std::string& rest);
  absl::Status Model(const std::string& rest);
  absl::Status Think(const std::string& rest);
  absl::Status Set(const std::string& rest);
  absl::Status Save(const std::string& rest);
  absl::Status Load(const std::string& rest);
  absl::Status Retry(const std::string& rest);
  absl::Status Undo(const std::string& rest);
  absl::Status ShowStats(const std::string& rest);

  const ChatSessionOptions options_;
  ChatConversation conversation_;
  OpenAiClient* const client_;
  std::ostream* const out_;
  std::ostream* const notes_;  // Answers of commands.
  Clock* const clock_;
  std::string failed_question_;  // forgotten with its error; empty: none
  std::optional<Stats> stats_;
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CLIENT_CHAT_SESSION_H_
