#include "cli/client/chat_session.h"

#include <ostream>
#include <utility>

#include "nlohmann/json.hpp"

namespace tessera::cli {
namespace {

using nlohmann::json;

constexpr std::string_view kDim = "\x1b[2m";
constexpr std::string_view kPlain = "\x1b[0m";

constexpr std::string_view kHelp =
    "  /help              this text\n"
    "  /reset             forget the conversation\n"
    "  /system TEXT       set the system text; without TEXT, remove it\n"
    "  /thinking on|off   ask for reasoning before the answer\n"
    "  /quit              leave, as Ctrl-D does\n"
    "A line that ends in a backslash goes on in the next. Ctrl-C stops a reply.\n";

std::string DeltaText(const json& delta, const char* key) {
  const auto it = delta.find(key);
  return it != delta.end() && it->is_string() ? it->get<std::string>() : "";
}

// The delta of the first choice; null when the chunk has none.
const json* DeltaOf(const json& chunk) {
  const auto choices = chunk.find("choices");
  if (choices == chunk.end() || !choices->is_array() || choices->empty() ||
      !choices->front().is_object()) {
    return nullptr;
  }
  const auto delta = choices->front().find("delta");
  return delta != choices->front().end() && delta->is_object() ? &*delta : nullptr;
}

}  // namespace

std::string ForTerminal(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const bool control = (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f;
    // U+0080 to U+009F are control characters too: some terminals take U+009B for ESC [.
    const bool wide_control = byte == 0xc2 && i + 1 < text.size() &&
                              static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (wide_control) {
      ++i;
    } else if (!control) {
      out.push_back(text[i]);
    }
  }
  return out;
}

absl::StatusOr<bool> ChatSession::Handle(const std::string& text) {
  if (text.find_first_not_of(" \t\n") == std::string::npos) {
    return true;
  }
  if (text.starts_with('/')) {
    return RunCommand(text);
  }
  const absl::Status status = Ask(text);
  if (!status.ok()) {
    return status;
  }
  return true;
}

bool ChatSession::RunCommand(std::string_view text) {
  const size_t space = text.find(' ');
  const std::string_view name = text.substr(0, space);
  std::string_view rest =
      space == std::string_view::npos ? std::string_view() : text.substr(space + 1);
  const size_t first = rest.find_first_not_of(" \t");
  rest = first == std::string_view::npos ? std::string_view() : rest.substr(first);
  if (name == "/quit" || name == "/exit") {
    return false;
  }
  if (name == "/help") {
    *notes_ << kHelp;
  } else if (name == "/reset") {
    messages_.clear();
    *notes_ << "forgot the conversation\n";
  } else if (name == "/system") {
    options_.system = rest;
    *notes_ << (rest.empty() ? "no system text\n" : "set the system text\n");
  } else if (name == "/thinking" && (rest == "on" || rest == "off")) {
    options_.thinking = rest == "on";
    *notes_ << "thinking is " << rest << '\n';
  } else if (name == "/thinking") {
    *notes_ << "expected /thinking on or /thinking off\n";
  } else {
    *notes_ << name << " is no command; /help lists them\n";
  }
  notes_->flush();
  return true;
}

json ChatSession::RequestBody() const {
  json messages = json::array();
  if (!options_.system.empty()) {
    messages.push_back({{"role", "system"}, {"content", options_.system}});
  }
  for (const Message& message : messages_) {
    messages.push_back({{"role", message.role}, {"content", message.content}});
  }
  json body = {{"model", options_.model}, {"messages", std::move(messages)}};
  if (options_.thinking.has_value()) {
    body["chat_template_kwargs"] = {{"thinking", *options_.thinking}};
  }
  if (options_.max_tokens.has_value()) {
    body["max_tokens"] = *options_.max_tokens;
  }
  if (options_.temperature.has_value()) {
    body["temperature"] = *options_.temperature;
  }
  if (options_.top_p.has_value()) {
    body["top_p"] = *options_.top_p;
  }
  if (options_.seed.has_value()) {
    body["seed"] = *options_.seed;
  }
  return body;
}

absl::Status ChatSession::Ask(const std::string& text) {
  messages_.push_back({"user", text});
  std::string reply;
  const StreamEnd end =
      client_->Stream("/v1/chat/completions", RequestBody(), [&](const json& chunk) {
        const json* delta = DeltaOf(chunk);
        if (delta == nullptr) {
          return true;
        }
        std::string reasoning = DeltaText(*delta, "reasoning_content");
        if (reasoning.empty()) {
          reasoning = DeltaText(*delta, "reasoning");
        }
        const std::string content = DeltaText(*delta, "content");
        PrintReasoning(reasoning);
        if (!content.empty()) {
          EndReasoning();
          Print(content);
          reply += content;
        }
        return true;
      });
  EndReasoning();
  if (!reply.empty() && !reply.ends_with('\n')) {
    *out_ << '\n';
  }
  out_->flush();
  if (end.status.ok() && reply.empty() && options_.terminal) {
    *notes_ << "(the reply is empty)\n" << std::flush;
  }
  // The reasoning of earlier turns is never part of the next prompt, so it is not kept.
  const bool keep = end.status.ok() ||
                    (end.status.code() == absl::StatusCode::kCancelled && !reply.empty());
  if (keep) {
    messages_.push_back({"assistant", std::move(reply)});
  } else {
    messages_.pop_back();
  }
  return end.status;
}

void ChatSession::Print(std::string_view text) {
  if (options_.terminal) {
    *out_ << ForTerminal(text);
  } else {
    *out_ << text;
  }
  out_->flush();
}

void ChatSession::PrintReasoning(std::string_view text) {
  if (text.empty() || !options_.terminal) {
    return;
  }
  if (!std::exchange(in_reasoning_, true)) {
    *out_ << kDim;
  }
  Print(text);
}

void ChatSession::EndReasoning() {
  if (std::exchange(in_reasoning_, false)) {
    *out_ << kPlain << "\n\n" << std::flush;
  }
}

}  // namespace tessera::cli
