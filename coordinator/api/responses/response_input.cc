#include "coordinator/api/responses/response_input.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>

#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "coordinator/api/chat/chat_tools.h"
#include "coordinator/api/chat/thinking_fields.h"
#include "coordinator/api/json_fields.h"

namespace tessera::coordinator {
namespace {

using model::ChatMessage;
using nlohmann::json;

// Collects messages from items. Items of one turn of the assistant come one by one.
class ItemReader {
 public:
  explicit ItemReader(std::vector<ChatMessage>* out) : out_(out) {}

  std::optional<ApiError> Read(const json& item, const std::string& where);

 private:
  std::optional<ApiError> ReadMessage(const json& item, const std::string& where);
  std::optional<ApiError> ReadReasoning(const json& item, const std::string& where);
  std::optional<ApiError> ReadCall(const json& item, const std::string& where);
  std::optional<ApiError> ReadOutput(const json& item, const std::string& where);

  ChatMessage* NewMessage(const std::string& role) {
    out_->emplace_back();
    out_->back().role = role;
    in_turn_ = role == "assistant";
    return &out_->back();
  }

  // The assistant's message that the items before this one began, unless what comes can't
  // stand behind what it holds.
  ChatMessage* Turn(bool before_content, bool before_calls) {
    if (in_turn_ && (!before_content || out_->back().content.empty()) &&
        (!before_calls || out_->back().tool_calls.empty())) {
      return &out_->back();
    }
    return NewMessage("assistant");
  }

  std::vector<ChatMessage>* out_;
  bool in_turn_ = false;  // the last message is the assistant's
};

// A string, or parts that hold text under their own name.
std::optional<ApiError> ReadParts(const json& content, const std::string& where,
                                  std::string* out) {
  if (content.is_string()) {
    *out = content.get<std::string>();
    return std::nullopt;
  }
  if (!content.is_array()) {
    return BadRequestError(where, "content must be a string or a list of parts");
  }
  static constexpr std::string_view kTextTypes[] = {
      "input_text", "output_text", "text", "summary_text", "reasoning_text", "refusal"};
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string at = fmt::format("{}[{}]", where, i);
    const json& part = content[i];
    if (!part.is_object() || !part.value("type", json()).is_string()) {
      return BadRequestError(at, "a content part must be an object with a type");
    }
    const std::string type = part["type"].get<std::string>();
    if (std::find(std::begin(kTextTypes), std::end(kTextTypes), type) ==
        std::end(kTextTypes)) {
      return UnsupportedError(
          at, fmt::format("content parts of type {} are not supported: this server takes "
                          "text alone",
                          type.substr(0, 40)));
    }
    const json text = part.value(type == "refusal" ? "refusal" : "text", json());
    if (!text.is_string()) {
      return BadRequestError(at, "a text part must hold a string named text");
    }
    // The encodings put an empty line between the blocks of a turn.
    *out += (out->empty() ? "" : "\n\n") + text.get<std::string>();
  }
  return std::nullopt;
}

// A member that must be a string and not be missing.
std::optional<ApiError> ReadString(const json& item, const std::string& where,
                                   std::string_view name, std::string* out) {
  FieldError error;
  JsonFields fields(item, &error, where + ".");
  auto read = fields.String(name);
  if (!fields.ok()) {
    return FromFieldError(error);
  }
  if (!read.has_value()) {
    return BadRequestError(fmt::format("{}.{}", where, name),
                           fmt::format("the item must hold a string named {}", name));
  }
  *out = *std::move(read);
  return std::nullopt;
}

std::optional<ApiError> ItemReader::Read(const json& item, const std::string& where) {
  if (!item.is_object()) {
    return BadRequestError(where, "an input item must be an object");
  }
  // Messages may leave their type out.
  const json type = item.value("type", json("message"));
  if (type == "message") {
    return ReadMessage(item, where);
  }
  if (type == "reasoning") {
    return ReadReasoning(item, where);
  }
  if (type == "function_call") {
    return ReadCall(item, where);
  }
  if (type == "function_call_output") {
    return ReadOutput(item, where);
  }
  return UnsupportedError(where + ".type",
                          "input items may be message, reasoning, function_call and "
                          "function_call_output; nothing is stored here that an item "
                          "could refer to, and no tools run here");
}

std::optional<ApiError> ItemReader::ReadMessage(const json& item,
                                                const std::string& where) {
  std::string role;
  if (auto bad = ReadString(item, where, "role", &role)) {
    return bad;
  }
  role = EncodingRole(std::move(role));
  if (role != "system" && role != "user" && role != "assistant") {
    return BadRequestError(where + ".role",
                           "role must be system, developer, user or assistant");
  }
  ChatMessage* message = role == "assistant"
                             ? Turn(/*before_content=*/true, /*before_calls=*/true)
                             : NewMessage(role);
  return ReadParts(item.value("content", json()), where + ".content", &message->content);
}

std::optional<ApiError> ItemReader::ReadReasoning(const json& item,
                                                  const std::string& where) {
  // The text itself where there is some, else what was made of it.
  const json content = item.value("content", json());
  const bool has_content = !content.is_null() && !content.empty();
  const char* name = has_content ? "content" : "summary";
  const json parts = has_content ? content : item.value("summary", json::array());
  ChatMessage* message = Turn(/*before_content=*/true, /*before_calls=*/true);
  if (!message->reasoning_content.empty()) {
    message = NewMessage("assistant");
  }
  return ReadParts(parts, where + "." + name, &message->reasoning_content);
}

std::optional<ApiError> ItemReader::ReadCall(const json& item, const std::string& where) {
  model::ToolCall call;
  if (auto bad = ReadString(item, where, "call_id", &call.id)) {
    return bad;
  }
  if (auto bad = ReadString(item, where, "name", &call.name)) {
    return bad;
  }
  if (auto bad = ReadString(item, where, "arguments", &call.arguments)) {
    return bad;
  }
  Turn(/*before_content=*/false, /*before_calls=*/false)
      ->tool_calls.push_back(std::move(call));
  return std::nullopt;
}

std::optional<ApiError> ItemReader::ReadOutput(const json& item,
                                               const std::string& where) {
  ChatMessage* message = NewMessage("tool");
  if (auto bad = ReadString(item, where, "call_id", &message->tool_call_id)) {
    return bad;
  }
  return ReadParts(item.value("output", json()), where + ".output", &message->content);
}

std::optional<ApiError> ReadInput(const json& body, const MessageRules& rules,
                                  std::vector<ChatMessage>* out) {
  const json input = body.value("input", json());
  if (input.is_string()) {
    ChatMessage message;
    message.role = "user";
    message.content = input.get<std::string>();
    out->push_back(std::move(message));
    return std::nullopt;
  }
  if (input.is_null() || (input.is_array() && input.empty())) {
    return BadRequestError("input", "input is missing");
  }
  if (!input.is_array()) {
    return BadRequestError("input", "input must be a string or a list of items");
  }
  if (input.size() > static_cast<size_t>(rules.max_messages)) {
    return BadRequestError("input", fmt::format("{} items, expected at most {}",
                                                input.size(), rules.max_messages));
  }
  ItemReader reader(out);
  for (size_t i = 0; i < input.size(); ++i) {
    if (auto bad = reader.Read(input[i], fmt::format("input[{}]", i))) {
      return bad;
    }
  }
  return std::nullopt;
}

std::optional<ApiError> ReadReasoningOptions(const ApiContext& context, const json& body,
                                             model::ChatOptions* options) {
  FieldError error;
  JsonFields fields(body, &error);
  const json* reasoning = fields.Object("reasoning");
  if (!fields.ok()) {
    return FromFieldError(error);
  }
  ThinkingRequest read;
  if (reasoning != nullptr && reasoning->contains("effort")) {
    if (auto bad = ReadEffort("reasoning.effort", (*reasoning)["effort"],
                              context.chat->traits(), &read)) {
      return bad;
    }
  }
  SettleThinking(read, context.options.default_thinking, options);
  return std::nullopt;
}

}  // namespace

std::optional<ApiError> ReadResponseConversation(const ApiContext& context,
                                                 const json& body, std::string_view text,
                                                 ChatConversation* out) {
  const MessageRules rules = RulesOf(context);
  FieldError error;
  JsonFields fields(body, &error);
  const auto instructions = fields.String("instructions");
  if (!fields.ok()) {
    return FromFieldError(error);
  }
  if (instructions.has_value() && !instructions->empty()) {
    out->messages.emplace_back();
    out->messages.back().role = "system";
    out->messages.back().content = *instructions;
  }
  if (auto bad = ReadInput(body, rules, &out->messages)) {
    return bad;
  }
  if (auto bad = CheckTextBytes(out->messages, rules, "input")) {
    return bad;
  }
  std::string tools;
  constexpr FlatTools kShape = {
      .schema_field = "parameters", .type = "function", .needs_type = true};
  if (auto bad = ReadFlatTools(body, text, kShape, rules, &tools)) {
    return bad;
  }
  out->tools.nested = false;
  if (auto bad = ReadToolChoice(body, &out->tools)) {
    return bad;
  }
  if (out->tools.shows_tools()) {
    ShowTools(std::move(tools), &out->messages);
  }
  return ReadReasoningOptions(context, body, &out->options);
}

}  // namespace tessera::coordinator
