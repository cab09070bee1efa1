#include "model/chat/call_format.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/strip.h"
#include "fmt/format.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "model/chat/control_tokens.h"
#include "model/chat/python_json.h"

namespace tessera::model {
namespace {

constexpr std::string_view kFence = "```";
constexpr std::string_view kJsonFence = "```json";

// Longer names are malformed.
constexpr size_t kMaxNameBytes = 1024;

std::string_view Stripped(std::string_view text) {
  const absl::string_view stripped =
      absl::StripAsciiWhitespace(absl::string_view(text.data(), text.size()));
  return {stripped.data(), stripped.size()};
}

bool TakePrefix(std::string_view prefix, std::string_view* text) {
  if (!text->starts_with(prefix)) {
    return false;
  }
  text->remove_prefix(prefix.size());
  return true;
}

absl::Status Expect(std::string_view expected, std::string_view* text) {
  if (TakePrefix(expected, text)) {
    return absl::OkStatus();
  }
  return InvalidArgumentF("tool block has `{}`, expected `{}`", text->substr(0, 40),
                          expected);
}

// Up to `end`, which goes too.
absl::StatusOr<std::string> Until(std::string_view end, std::string_view* text) {
  const size_t position = text->find(end);
  if (position == std::string_view::npos) {
    return InvalidArgumentF("tool block has `{}`, expected an end with `{}`",
                            text->substr(0, 40), end);
  }
  std::string part(text->substr(0, position));
  text->remove_prefix(position + end.size());
  return part;
}

std::string_view WithoutFence(std::string_view arguments) {
  arguments = Stripped(arguments);
  if (!TakePrefix(kJsonFence, &arguments)) {
    TakePrefix(kFence, &arguments);
  }
  if (arguments.ends_with(kFence)) {
    arguments.remove_suffix(kFence.size());
  }
  return Stripped(arguments);
}

}  // namespace

constexpr CallFormat kV3Format = {
    .name = "v3",
    .header = HeaderPlace::kAfterUser,
    .before_name = "function<｜tool▁sep｜>",
    .after_name = "\n```json\n",
    .after_arguments = "\n```",
    .between_calls = "\n",
    .results_open = kOutputsBeginToken,
    .results_close = kOutputsEndToken,
    .between_results = "\n",
    .several_calls_text = "- For multiple tool calls, put a line break between them",
};

constexpr CallFormat kR1Format = {
    .name = "r1",
    .header = HeaderPlace::kBeforeAnswer,
    .has_reasoning = true,
    .open_thinking = "<think>\n",
    // R1 knows no answer without reasoning; what it writes where it skips it is this.
    .open_plain = "<think>\n\n</think>\n\n",
    .before_name = "function<｜tool▁sep｜>",
    .after_name = "\n```json\n",
    .after_arguments = "\n```",
    .between_calls = "\n",
    .results_open = kOutputsBeginToken,
    .results_close = kOutputsEndToken,
    .between_results = "\n",
    .several_calls_text = "- For multiple tool calls, put a line break between them",
};

constexpr CallFormat kV31Format = {
    .name = "v31",
    .header = HeaderPlace::kBetween,
    .has_reasoning = true,
    .open_thinking = kThinkToken,
    .open_plain = kEndThinkToken,
    .open_past = kEndThinkToken,
    .after_name = kSepToken,
    .several_calls_text =
        "- For multiple tool calls, chain them directly without separators or spaces",
};

std::string MakeCallsText(const CallFormat& format) {
  return fmt::format(
      "IMPORTANT: ALWAYS adhere to this exact format for tool use:\n"
      "{}{}{}tool_call_name{}tool_call_arguments{}{}{{additional_tool_calls}}{}\n\n"
      "Where:\n"
      "- `tool_call_name` must be an exact match to one of the available tools\n"
      "- `tool_call_arguments` must be valid JSON that strictly follows the tool's "
      "Parameters Schema\n"
      "{}",
      kCallsBeginToken, kCallBeginToken, format.before_name, format.after_name,
      format.after_arguments, kCallEndToken, kCallsEndToken, format.several_calls_text);
}

void WriteCalls(const CallFormat& format, const std::vector<ToolCall>& calls,
                PromptWriter* writer) {
  writer->Own(kCallsBeginToken);
  for (size_t i = 0; i < calls.size(); ++i) {
    writer->Own(i == 0 ? "" : format.between_calls);
    writer->Own(kCallBeginToken);
    writer->Own(format.before_name);
    writer->Untrusted(calls[i].name);
    writer->Own(format.after_name);
    writer->Untrusted(calls[i].arguments);
    writer->Own(format.after_arguments);
    writer->Own(kCallEndToken);
  }
  writer->Own(kCallsEndToken);
}

absl::StatusOr<std::vector<ToolCall>> ReadCalls(const CallFormat& format,
                                                std::string_view* text) {
  std::vector<ToolCall> calls;
  TESSERA_RETURN_IF_ERROR(Expect(kCallsBeginToken, text));
  const std::string arguments_end =
      fmt::format("{}{}", format.after_arguments, kCallEndToken);
  do {
    if (!calls.empty()) {
      TESSERA_RETURN_IF_ERROR(Expect(format.between_calls, text));
    }
    TESSERA_RETURN_IF_ERROR(Expect(kCallBeginToken, text));
    TESSERA_RETURN_IF_ERROR(Expect(format.before_name, text));
    ToolCall call;
    TESSERA_ASSIGN_OR_RETURN(call.name, Until(format.after_name, text));
    TESSERA_ASSIGN_OR_RETURN(call.arguments, Until(arguments_end, text));
    if (!PythonJson::Parse(call.arguments).ok()) {
      return InvalidArgumentF("arguments of `{}` are no json", call.name);
    }
    calls.push_back(std::move(call));
  } while (!TakePrefix(kCallsEndToken, text));
  return calls;
}

std::optional<ToolCall> ReadCallText(const CallFormat& format, std::string_view text,
                                     bool is_open) {
  const size_t separator = text.find(kSepToken);
  if (separator == std::string_view::npos) {
    return std::nullopt;
  }
  std::string_view name = text.substr(0, separator);
  std::string_view arguments = text.substr(separator + kSepToken.size());
  if (!format.before_name.empty()) {
    // The kind of the tool stood before the separator: the name is the line after it.
    const size_t line_end = arguments.find('\n');
    if (line_end == std::string_view::npos) {
      return std::nullopt;
    }
    name = arguments.substr(0, line_end);
    arguments = arguments.substr(line_end);
  }
  name = Stripped(name);
  if (name.empty() || name.size() > kMaxNameBytes) {
    return std::nullopt;
  }
  ToolCall call{.name = std::string(name)};
  call.arguments = is_open && arguments.find(kFence) == std::string_view::npos
                       ? Stripped(arguments)
                       : WithoutFence(arguments);
  return call;
}

}  // namespace tessera::model
