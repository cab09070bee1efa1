#include "cli/client/chat_session.h"

#include <algorithm>
#include <ostream>
#include <utility>

#include "cli/client/reply_printer.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::cli {
namespace {

using nlohmann::json;

std::string TextOf(const json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

int64_t CountOf(const json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_number_integer() ? it->get<int64_t>() : 0;
}

// The first choice; null when the chunk has none.
const json* ChoiceOf(const json& chunk) {
  const auto choices = chunk.find("choices");
  return choices != chunk.end() && choices->is_array() && !choices->empty() &&
                 choices->front().is_object()
             ? &choices->front()
             : nullptr;
}

const json* DeltaOf(const json& chunk) {
  const json* choice = ChoiceOf(chunk);
  if (choice == nullptr) {
    return nullptr;
  }
  const auto delta = choice->find("delta");
  return delta != choice->end() && delta->is_object() ? &*delta : nullptr;
}

std::string_view Trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\n");
  if (first == std::string_view::npos) {
    return {};
  }
  return text.substr(first, text.find_last_not_of(" \t\n") - first + 1);
}

}  // namespace

struct ChatSession::Command {
  std::string_view name;
  std::string_view argument;
  std::string_view help;
  absl::Status (ChatSession::*run)(const std::string& rest);
};

absl::StatusOr<bool> ChatSession::Handle(const std::string& text) {
  if (Trimmed(text).empty()) {
    return true;
  }
  if (text.starts_with('/')) {
    return RunCommand(Trimmed(text));
  }
  TESSERA_RETURN_IF_ERROR(Ask(text));
  return true;
}

namespace {

constexpr std::string_view kKeys =
    "A line that ends in a backslash goes on in the next; so does Alt-Enter.\n"
    "Arrow keys walk through what was typed. Ctrl-C stops a reply, Ctrl-D leaves.\n";

}  // namespace

absl::StatusOr<bool> ChatSession::RunCommand(std::string_view text) {
  static constexpr Command kCommands[] = {
      {"/help", "", "this text", &ChatSession::Help},
      {"/system", "[TEXT]", "set the system text; without TEXT, remove it",
       &ChatSession::System},
      {"/model", "[NAME]", "ask this model; without NAME, say which",
       &ChatSession::Model},
      {"/set", "NAME VALUE",
       "temperature, top_p, max_tokens or seed; VALUE may be default", &ChatSession::Set},
      {"/think", "on|off|default", "ask for reasoning before the answer",
       &ChatSession::Think},
      {"/retry", "", "ask the last question again", &ChatSession::Retry},
      {"/undo", "", "forget the last question and its reply", &ChatSession::Undo},
      {"/reset", "", "forget the conversation", &ChatSession::Reset},
      {"/save", "FILE", "write the conversation to a file", &ChatSession::Save},
      {"/load", "FILE", "go on with the conversation of a file", &ChatSession::Load},
      {"/stats", "", "the numbers of the last reply", &ChatSession::ShowStats},
  };
  std::string_view name = text.substr(0, text.find_first_of(" \t\n"));
  const std::string rest(Trimmed(text.substr(name.size())));
  if (name == "/quit" || name == "/exit") {
    return false;
  }
  name = name == "/thinking" ? "/think" : name;
  const auto command = std::find_if(std::begin(kCommands), std::end(kCommands),
                                    [&](const Command& c) { return c.name == name; });
  if (command == std::end(kCommands)) {
    *notes_ << ForTerminal(name) << " is no command; /help lists them\n" << std::flush;
    return true;
  }
  if (command->run == &ChatSession::Help) {
    for (const Command& c : kCommands) {
      *notes_ << fmt::format("  {:<24} {}\n", fmt::format("{} {}", c.name, c.argument),
                             c.help);
    }
    *notes_ << fmt::format("  {:<24} {}\n", "/quit", "leave, as Ctrl-D does");
  }
  const absl::Status status = (this->*command->run)(rest);
  notes_->flush();
  // A mistake in a command is told like its answer; a reply that fails is an error.
  if (absl::IsInvalidArgument(status)) {
    *notes_ << status.message() << '\n' << std::flush;
    return true;
  }
  TESSERA_RETURN_IF_ERROR(status);
  return true;
}

absl::Status ChatSession::Help(const std::string& /*rest*/) {
  *notes_ << kKeys;
  return absl::OkStatus();
}

absl::Status ChatSession::Reset(const std::string& /*rest*/) {
  conversation_.Clear();
  failed_question_.clear();
  *notes_ << "forgot the conversation\n";
  return absl::OkStatus();
}

absl::Status ChatSession::System(const std::string& rest) {
  conversation_.settings()->system = rest;
  *notes_ << (rest.empty() ? "no system text\n" : "set the system text\n");
  return absl::OkStatus();
}

absl::Status ChatSession::Model(const std::string& rest) {
  std::string& model = conversation_.settings()->model;
  if (!rest.empty()) {
    model = rest;
  }
  *notes_ << "the model is " << ForTerminal(model) << '\n';
  return absl::OkStatus();
}

absl::Status ChatSession::Think(const std::string& rest) {
  if (rest == "on" || rest == "off") {
    conversation_.settings()->thinking = rest == "on";
  } else if (rest == "default") {
    conversation_.settings()->thinking.reset();
  } else {
    return InvalidArgumentF("expected /think on, off or default");
  }
  *notes_ << "thinking is " << rest << '\n';
  return absl::OkStatus();
}

absl::Status ChatSession::Set(const std::string& rest) {
  const size_t space = rest.find_first_of(" \t=");
  const std::string name = rest.substr(0, space);
  const std::string value(space == std::string::npos
                              ? ""
                              : Trimmed(std::string_view(rest).substr(space + 1)));
  TESSERA_RETURN_IF_ERROR(conversation_.Set(name, value));
  *notes_ << name << " is " << value << '\n';
  return absl::OkStatus();
}

absl::Status ChatSession::Save(const std::string& rest) {
  if (rest.empty()) {
    return InvalidArgumentF("expected /save FILE");
  }
  const absl::Status status = conversation_.Save(rest);
  *notes_ << (status.ok() ? "wrote " + rest : std::string(status.message())) << '\n';
  return absl::OkStatus();
}

absl::Status ChatSession::Load(const std::string& rest) {
  if (rest.empty()) {
    return InvalidArgumentF("expected /load FILE");
  }
  const absl::Status status = conversation_.Load(rest);
  *notes_ << (status.ok() ? fmt::format("read {} messages", conversation_.num_messages())
                          : std::string(status.message()))
          << '\n';
  return absl::OkStatus();
}

absl::Status ChatSession::Retry(const std::string& /*rest*/) {
  std::string question = std::exchange(failed_question_, "");
  if (question.empty()) {
    question = conversation_.TakeLastQuestion().value_or("");
  }
  if (question.empty()) {
    return InvalidArgumentF("there is no question to ask again");
  }
  return Ask(question);
}

absl::Status ChatSession::Undo(const std::string& /*rest*/) {
  if (!conversation_.TakeLastQuestion().has_value()) {
    return InvalidArgumentF("there is nothing to forget");
  }
  *notes_ << "forgot the last question and its reply\n";
  return absl::OkStatus();
}

absl::Status ChatSession::ShowStats(const std::string& /*rest*/) {
  if (!stats_.has_value()) {
    return InvalidArgumentF("there was no reply yet");
  }
  const double decode = absl::ToDoubleSeconds(stats_->total - stats_->first_token);
  *notes_ << fmt::format(
      "  first token {:.0f} ms, {:.1f} tokens/s; prompt {} ({} cached), generated {}; "
      "{}\n",
      absl::ToDoubleMilliseconds(stats_->first_token),
      decode > 0
          ? static_cast<double>(std::max<int64_t>(stats_->completion_tokens - 1, 0)) /
                decode
          : 0.0,
      stats_->prompt_tokens, stats_->cached_tokens, stats_->completion_tokens,
      stats_->finish_reason.empty() ? "stopped" : stats_->finish_reason);
  return absl::OkStatus();
}

void ChatSession::TakeEnd(const json& chunk, Stats* stats) const {
  if (const json* choice = ChoiceOf(chunk)) {
    const std::string reason = TextOf(*choice, "finish_reason");
    stats->finish_reason = reason.empty() ? stats->finish_reason : reason;
  }
  const auto usage = chunk.find("usage");
  if (usage != chunk.end() && usage->is_object()) {
    stats->prompt_tokens = CountOf(*usage, "prompt_tokens");
    stats->completion_tokens = CountOf(*usage, "completion_tokens");
    const auto details = usage->find("prompt_tokens_details");
    stats->cached_tokens = details != usage->end() && details->is_object()
                               ? CountOf(*details, "cached_tokens")
                               : 0;
  }
}

absl::Status ChatSession::Ask(const std::string& text) {
  conversation_.AddUser(text);
  failed_question_.clear();
  std::string reply;
  ReplyPrinter printer(out_, options_.terminal, options_.styled);
  Stats stats;
  const absl::Time begin = clock_->Now();
  const auto take = [&](const json& chunk) {
    TakeEnd(chunk, &stats);
    const json* delta = DeltaOf(chunk);
    if (delta == nullptr) {
      return true;
    }
    std::string reasoning = TextOf(*delta, "reasoning_content");
    if (reasoning.empty()) {
      reasoning = TextOf(*delta, "reasoning");
    }
    const std::string content = TextOf(*delta, "content");
    if (stats.first_token == absl::ZeroDuration() &&
        !(reasoning.empty() && content.empty())) {
      stats.first_token = clock_->Now() - begin;
    }
    printer.Reasoning(reasoning);
    printer.Content(content);
    reply += content;
    return true;
  };
  const StreamEnd end =
      client_->Stream("/v1/chat/completions", conversation_.RequestBody(), take);
  printer.Finish();
  stats.total = clock_->Now() - begin;
  if (end.status.ok() && reply.empty() && options_.terminal) {
    *notes_ << "(the reply is empty)\n" << std::flush;
  }
  // The reasoning of earlier turns is never part of the next prompt, so it is not kept.
  const bool keep = end.status.ok() || (absl::IsCancelled(end.status) && !reply.empty());
  if (keep) {
    stats_ = stats;
    conversation_.AddReply(std::move(reply));
  } else {
    failed_question_ = conversation_.TakeLastQuestion().value_or("");
  }
  return end.status;
}

}  // namespace tessera::cli
