// tessera chat: a conversation with a running server, in the terminal or through a pipe.
#include <cstdlib>
#include <functional>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/client/chat_session.h"
#include "cli/client/interrupt.h"
#include "cli/client/line_reader.h"
#include "cli/client/openai_client.h"
#include "cli/client/reply_printer.h"
#include "cli/client/terminal_editor.h"
#include "cli/subcommand.h"
#include <unistd.h>

#include "common/clock.h"
#include "common/option_table.h"
#include "common/status_macros.h"

namespace tessera::cli {
namespace {

constexpr std::string_view kPrompt = "> ";

struct ChatOptions {
  std::string url = "http://127.0.0.1:8000";
  std::string api_key;
  std::string ca_file;
  absl::Duration connect_timeout = absl::Seconds(5);
  absl::Duration read_timeout = absl::Minutes(10);
  ChatSettings session;
};

void Declare(OptionTable* table, ChatOptions* options) {
  ChatSettings& session = options->session;
  table->Heading("Server");
  table->Add("url", &options->url, "where the server listens, http:// or https://");
  table->Add("ca-file", &options->ca_file,
             "PEM authorities of an https:// server; default: the system's");
  table->Add("model", &session.model, "name of the model; default: the first listed");
  table->Add("api-key", &options->api_key, "key of the server").Secret();
  table->Add("connect-timeout", &options->connect_timeout, "for the connection");
  table->Add("read-timeout", &options->read_timeout, "longest silence of the server");
  table->Heading("Conversation");
  table->Add("system", &session.system, "system text");
  table->Add("thinking", &session.thinking, "ask for reasoning; default: the server's");
  table->Add("max-tokens", &session.max_tokens, "longest reply").AtLeast(1);
  table->Add("temperature", &session.temperature, "0: greedy").Range(0, 2);
  table->Add("top-p", &session.top_p, "nucleus of the sampling").Range(0, 1);
  table->Add("seed", &session.seed, "of the sampling");
}

// Reads one message from a pipe: a line and those that continue it.
absl::StatusOr<ReadLine> ReadMessage(LineReader* reader) {
  std::string message;
  for (bool first = true;; first = false) {
    TESSERA_ASSIGN_OR_RETURN(ReadLine line, reader->Next());
    if (line.kind == ReadLine::Kind::kEnd && !first) {
      return ReadLine{ReadLine::Kind::kLine, message};
    }
    if (line.kind != ReadLine::Kind::kLine) {
      return line;
    }
    if (!line.text.ends_with('\\')) {
      message += line.text;
      return ReadLine{ReadLine::Kind::kLine, std::move(message)};
    }
    line.text.back() = '\n';
    message += line.text;
  }
}

using MessageSource = std::function<absl::StatusOr<ReadLine>()>;

// The terminal's own editing does where TERM says that there is no other.
bool IsDumb() {
  const char* term = std::getenv("TERM");
  return term == nullptr || std::string_view(term) == "dumb";
}

// Colours unless NO_COLOR is set to anything (no-color.org).
bool WantsColour() {
  const char* no_colour = std::getenv("NO_COLOR");
  return (no_colour == nullptr || *no_colour == '\0') && !IsDumb();
}

// A person sees an error and types on; a script must not take a missing reply for one.
absl::Status Converse(ChatSession* session, const MessageSource& next,
                      Interrupt* interrupt, bool interactive) {
  for (bool warned = false;;) {
    TESSERA_ASSIGN_OR_RETURN(const ReadLine message, next());
    if (message.kind == ReadLine::Kind::kEnd) {
      std::cout << (interactive ? "\n" : "") << std::flush;
      return absl::OkStatus();
    }
    if (message.kind == ReadLine::Kind::kInterrupted) {
      interrupt->Take();
      if (!interactive) {
        return absl::CancelledError("interrupted");
      }
      std::cout << '\n' << std::flush;
      if (std::exchange(warned, true)) {
        return absl::OkStatus();
      }
      std::cout << "(Ctrl-C again, Ctrl-D or /quit to leave)\n";
      continue;
    }
    warned = false;
    const absl::StatusOr<bool> go_on = session->Handle(message.text);
    if (!go_on.ok() && !interactive) {
      return go_on.status();
    }
    if (!go_on.ok()) {
      const bool stopped = go_on.status().code() == absl::StatusCode::kCancelled;
      std::cout << (stopped ? "(stopped)"
                            : "error: " + std::string(go_on.status().message()))
                << '\n';
    } else if (!*go_on) {
      return absl::OkStatus();
    }
    // Ctrl-C during a reply was for the reply.
    interrupt->Take();
  }
}

}  // namespace

absl::Status RunChat(Arguments arguments) {
  ChatOptions options;
  OptionTable table("chat",
                    "Talks to a running server. Each line is a message; /help lists the "
                    "commands. With input from a pipe it prints the replies alone.");
  Declare(&table, &options);
  TESSERA_ASSIGN_OR_RETURN(const bool go_on, ParseOptions(&table, arguments));
  if (!go_on) {
    return absl::OkStatus();
  }
  TESSERA_ASSIGN_OR_RETURN(const auto interrupt, Interrupt::Create());
  HttpClientOptions http;
  http.url = options.url;
  http.ca_file = options.ca_file;
  http.connect_timeout = options.connect_timeout;
  http.read_timeout = options.read_timeout;
  http.cancel_descriptor = interrupt->descriptor();
  TESSERA_ASSIGN_OR_RETURN(const auto client,
                           OpenAiClient::Create(http, options.api_key));
  if (options.session.model.empty()) {
    TESSERA_ASSIGN_OR_RETURN(options.session.model, client->FirstModel());
  }
  ChatSessionOptions session_options;
  session_options.settings = options.session;
  session_options.terminal = ::isatty(STDOUT_FILENO) == 1;
  session_options.styled = session_options.terminal && WantsColour();
  const bool interactive = ::isatty(STDIN_FILENO) == 1 && session_options.terminal;
  if (interactive) {
    std::cout << "Talking to " << ForTerminal(options.session.model) << " at "
              << options.url << "; /help lists the commands.\n";
  }
  ChatSession session(session_options, client.get(), &std::cout,
                      interactive ? &std::cout : &std::cerr, Clock::Real());
  LineReader reader(STDIN_FILENO, interrupt->descriptor());
  TerminalEditor editor(STDIN_FILENO, STDOUT_FILENO);
  MessageSource next = [&reader] { return ReadMessage(&reader); };
  if (interactive && !IsDumb()) {
    next = [&editor] { return editor.Read(kPrompt); };
  } else if (interactive) {
    next = [&reader] {
      std::cout << kPrompt << std::flush;
      return ReadMessage(&reader);
    };
  }
  return Converse(&session, next, interrupt.get(), interactive);
}

}  // namespace tessera::cli
