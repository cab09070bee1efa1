#include "coordinator/api/anthropic/anthropic_conversation.h"

#include <string>
#include <string_view>
#include <utility>

#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "coordinator/api/chat/chat_tools.h"
#include "coordinator/api/chat/thinking_fields.h"
#include "coordinator/api/json/json_source.h"
#include "coordinator/api/json_fields.h"

namespace tessera::coordinator {
namespace {

using model::ChatMessage;
using nlohmann::json;

// The encodings put an empty line between the blocks of a turn.
void AddBlock(std::string_view text, std::string* out) {
  if (!out->empty()) {
    *out += "\n\n";
  }
  *out += text;
}

// The type of a block, which must be an object.
std::optional<ApiError> ReadType(const json& block, const std::string& where,
                                 std::string* type) {
  const auto found = block.is_object() ? block.find("type") : block.end();
  if (!block.is_object() || found == block.end() || !found->is_string()) {
    return BadRequestError(where, "a content block must be an object with a type");
  }
  *type = found->get<std::string>();
  return std::nullopt;
}

// A member that must be a string.
std::optional<ApiError> ReadText(const json& block, const std::string& where,
                                 std::string_view name, std::string* text) {
  FieldError error;
  JsonFields fields(block, &error, where + ".");
  auto read = fields.String(name);
  if (!fields.ok()) {
    return FromFieldError(error);
  }
  if (!read.has_value()) {
    return BadRequestError(fmt::format("{}.{}", where, name),
                           fmt::format("the block must hold a string named {}", name));
  }
  *text = *std::move(read);
  return std::nullopt;
}

ApiError BlockTypeError(const std::string& where, const std::string& type,
                        std::string_view allowed) {
  return UnsupportedError(
      where, fmt::format("content blocks of type {} are not supported here: this server "
                         "runs no vision tower and no tools of its own; it takes {}",
                         type.substr(0, 40), allowed));
}

// A string, or blocks of type text: `system`, and the content of a tool_result.
std::optional<ApiError> ReadTextBlocks(const json& content, const std::string& where,
                                       std::string* out) {
  if (content.is_string()) {
    *out = content.get<std::string>();
    return std::nullopt;
  }
  if (!content.is_array()) {
    return BadRequestError(where, where + " must be a string or a list of text blocks");
  }
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string at = fmt::format("{}[{}]", where, i);
    std::string type;
    if (auto bad = ReadType(content[i], at, &type)) {
      return bad;
    }
    if (type != "text") {
      return BlockTypeError(at, type, "text");
    }
    std::string text;
    if (auto bad = ReadText(content[i], at, "text", &text)) {
      return bad;
    }
    AddBlock(text, out);
  }
  return std::nullopt;
}

std::optional<ApiError> ReadToolResult(const json& block, const std::string& where,
                                       ChatMessage* out) {
  out->role = "tool";
  if (auto bad = ReadText(block, where, "tool_use_id", &out->tool_call_id)) {
    return bad;
  }
  const auto content = block.find("content");
  if (content == block.end() || content->is_null()) {
    return std::nullopt;
  }
  return ReadTextBlocks(*content, where + ".content", &out->content);
}

// One block of a user's message, which may begin a message of its own.
std::optional<ApiError> ReadUserBlock(const json& block, const std::string& where,
                                      std::vector<ChatMessage>* out, bool* in_text) {
  std::string type;
  if (auto bad = ReadType(block, where, &type)) {
    return bad;
  }
  if (type == "tool_result") {
    *in_text = false;
    out->emplace_back();
    return ReadToolResult(block, where, &out->back());
  }
  if (type != "text") {
    return BlockTypeError(where, type, "text and tool_result");
  }
  std::string text;
  if (auto bad = ReadText(block, where, "text", &text)) {
    return bad;
  }
  if (!std::exchange(*in_text, true)) {
    out->emplace_back();
    out->back().role = "user";
  }
  AddBlock(text, &out->back().content);
  return std::nullopt;
}

// `text`: what the block was parsed from; the input stays as it is written there.
std::optional<ApiError> ReadToolUse(const json& block, const std::string& where,
                                    std::string_view text,
                                    std::vector<model::ToolCall>* out) {
  model::ToolCall call;
  if (auto bad = ReadText(block, where, "id", &call.id)) {
    return bad;
  }
  if (auto bad = ReadText(block, where, "name", &call.name)) {
    return bad;
  }
  const auto input = block.find("input");
  if (input == block.end() || !input->is_object()) {
    return BadRequestError(where + ".input",
                           "a tool_use block must hold an input object");
  }
  call.arguments = std::string(JsonMember(text, "input"));
  out->push_back(std::move(call));
  return std::nullopt;
}

std::optional<ApiError> ReadAssistantBlock(const json& block, const std::string& where,
                                           std::string_view source, ChatMessage* out) {
  std::string type;
  if (auto bad = ReadType(block, where, &type)) {
    return bad;
  }
  if (type == "tool_use") {
    return ReadToolUse(block, where, source, &out->tool_calls);
  }
  if (type != "text" && type != "thinking") {
    return BlockTypeError(where, type, "text, thinking and tool_use");
  }
  std::string text;
  if (auto bad = ReadText(block, where, type, &text)) {
    return bad;
  }
  AddBlock(text, type == "text" ? &out->content : &out->reasoning_content);
  return std::nullopt;
}

std::optional<ApiError> ReadMessage(const json& message, size_t index,
                                    std::string_view text,
                                    std::vector<ChatMessage>* out) {
  const std::string where = fmt::format("messages[{}]", index);
  if (!message.is_object()) {
    return BadRequestError(where, "a message must be an object");
  }
  const json role = message.value("role", json());
  if (role != "user" && role != "assistant") {
    return BadRequestError(where + ".role",
                           "role must be user or assistant; instructions go into system");
  }
  const json content = message.value("content", json());
  const bool is_user = role == "user";
  if (content.is_string() || !is_user) {
    out->emplace_back();
    out->back().role = role.get<std::string>();
  }
  if (content.is_string()) {
    out->back().content = content.get<std::string>();
    return std::nullopt;
  }
  if (!content.is_array() || content.empty()) {
    return BadRequestError(where + ".content",
                           "content must be a string or a list of blocks");
  }
  const auto texts = JsonElements(JsonMember(text, "content"));
  if (texts.size() != content.size()) {
    return BadRequestError(where + ".content", "content can't be found in the body");
  }
  bool in_text = false;
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string at = fmt::format("{}.content[{}]", where, i);
    if (auto bad = is_user ? ReadUserBlock(content[i], at, out, &in_text)
                           : ReadAssistantBlock(content[i], at, texts[i], &out->back())) {
      return bad;
    }
  }
  return std::nullopt;
}

std::optional<ApiError> ReadAllMessages(const json& body, std::string_view text,
                                        const MessageRules& rules,
                                        std::vector<ChatMessage>* out) {
  const auto system = body.find("system");
  if (system != body.end() && !system->is_null()) {
    ChatMessage message;
    message.role = "system";
    if (auto bad = ReadTextBlocks(*system, "system", &message.content)) {
      return bad;
    }
    if (!message.content.empty()) {
      out->push_back(std::move(message));
    }
  }
  const json* messages = nullptr;
  if (auto bad = FindMessages(body, rules, &messages)) {
    return bad;
  }
  const auto texts = JsonElements(JsonMember(text, "messages"));
  if (texts.size() != messages->size()) {
    return BadRequestError("messages", "messages can't be found in the body");
  }
  for (size_t i = 0; i < messages->size(); ++i) {
    if (auto bad = ReadMessage((*messages)[i], i, texts[i], out)) {
      return bad;
    }
  }
  return CheckTextBytes(*out, rules, "messages");
}

// {"type": "auto" | "any" | "tool" | "none", "name", "disable_parallel_tool_use"}.
std::optional<ApiError> ReadChoice(const json& body, ToolDemand* demand) {
  demand->nested = false;
  demand->schema_field = "input_schema";
  FieldError error;
  JsonFields fields(body, &error);
  const json* choice = fields.Object("tool_choice");
  if (!fields.ok()) {
    return FromFieldError(error);
  }
  if (choice == nullptr) {
    return std::nullopt;
  }
  const json type = choice->value("type", json());
  if (type != "auto" && type != "none" && type != "any" && type != "tool") {
    return BadRequestError("tool_choice.type",
                           "tool_choice.type must be auto, any, tool or none");
  }
  JsonFields nested(*choice, &error, "tool_choice.");
  demand->parallel = !nested.Bool("disable_parallel_tool_use").value_or(false);
  demand->name = nested.String("name").value_or("");
  if (!nested.ok()) {
    return FromFieldError(error);
  }
  if ((type == "tool") == demand->name.empty()) {
    return BadRequestError("tool_choice.name",
                           "tool_choice.name is the tool of type tool alone");
  }
  demand->choice = type == "none"   ? ToolDemand::Choice::kNone
                   : type == "auto" ? ToolDemand::Choice::kAuto
                                    : ToolDemand::Choice::kRequired;
  return std::nullopt;
}

std::optional<ApiError> ReadThinking(const ApiContext& context, const json& body,
                                     model::ChatOptions* options) {
  FieldError error;
  JsonFields fields(body, &error);
  const json* thinking = fields.Object("thinking");
  const json* config = fields.Object("output_config");
  if (!fields.ok()) {
    return FromFieldError(error);
  }
  ThinkingRequest read;
  if (config != nullptr && config->contains("effort")) {
    if (auto bad = ReadEffort("output_config.effort", (*config)["effort"],
                              context.chat->traits(), &read)) {
      return bad;
    }
  }
  // Unlike in OpenAI's dialect an effort says how hard to think, never whether to.
  if (thinking == nullptr) {
    read.thinking = context.options.default_thinking;
  } else if (auto bad = ReadThinkingObject(*thinking, &read)) {
    return bad;
  }
  SettleThinking(read, context.options.default_thinking, options);
  return std::nullopt;
}

}  // namespace

std::optional<ApiError> ReadAnthropicConversation(const ApiContext& context,
                                                  const json& body, std::string_view text,
                                                  ChatConversation* out) {
  const MessageRules rules = RulesOf(context);
  if (auto bad = ReadAllMessages(body, text, rules, &out->messages)) {
    return bad;
  }
  std::string tools;
  constexpr FlatTools kShape = {.schema_field = "input_schema", .type = "custom"};
  if (auto bad = ReadFlatTools(body, text, kShape, rules, &tools)) {
    return bad;
  }
  if (auto bad = ReadChoice(body, &out->tools)) {
    return bad;
  }
  if (out->tools.shows_tools()) {
    ShowTools(std::move(tools), &out->messages);
  }
  if (auto bad = ReadThinking(context, body, &out->options)) {
    return bad;
  }
  if (!out->messages.back().tool_calls.empty()) {
    return BadRequestError("messages",
                           "a tool_use block must be followed by its tool_result");
  }
  // An answer that the client began is carried on: there is no other last message of the
  // assistant in this dialect, so false needs no word.
  ContinueLastMessage(out);
  return std::nullopt;
}

}  // namespace tessera::coordinator
