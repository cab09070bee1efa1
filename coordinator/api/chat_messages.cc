#include "coordinator/api/chat_messages.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>

#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "coordinator/api/json_fields.h"

namespace tessera::coordinator {
namespace {

using nlohmann::json;

constexpr const char* kRoles[] = {"system", "user", "assistant", "tool",
                                  "latest_reminder"};

// A part that is no text.
ApiError PartTypeError(const std::string& param, std::string_view type,
                       const MessageRules& rules) {
  const bool is_image = type.find("image") != std::string_view::npos;
  return UnsupportedError(
      param,
      is_image ? fmt::format("this server does not run a vision tower: model `{}` takes "
                             "text alone, not content parts of type {}",
                             rules.model_name, type)
               : fmt::format("model `{}` takes content parts of type text only",
                             rules.model_name));
}

// `content`: null, a string, or parts of type text.
std::optional<ApiError> ReadContent(const json& message, const std::string& where,
                                    const MessageRules& rules, std::string* out) {
  const auto content = message.find("content");
  if (content == message.end() || content->is_null()) {
    return std::nullopt;
  }
  if (content->is_string()) {
    *out = content->get<std::string>();
    return std::nullopt;
  }
  if (!content->is_array()) {
    return BadRequestError(where + "content",
                           "content must be a string or a list of parts");
  }
  bool first = true;
  for (const json& part : *content) {
    if (!part.is_object() || !part.contains("type") || !part["type"].is_string()) {
      return BadRequestError(where + "content",
                             "a content part must be an object with a type");
    }
    if (part["type"] != "text") {
      return PartTypeError(where + "content", part["type"].get_ref<const std::string&>(),
                           rules);
    }
    if (!part.contains("text") || !part["text"].is_string()) {
      return BadRequestError(where + "content",
                             "a text part must hold a string named text");
    }
    // The encodings put an empty line between the blocks of a turn.
    *out += (first ? "" : "\n\n") + part["text"].get_ref<const std::string&>();
    first = false;
  }
  return std::nullopt;
}

std::optional<ApiError> ReadToolCalls(const json& calls, const std::string& where,
                                      std::vector<model::ToolCall>* out) {
  FieldError error;
  for (const json& call : calls) {
    if (!call.is_object()) {
      return BadRequestError(where + "tool_calls", "a tool call must be an object");
    }
    JsonFields fields(call, &error, where + "tool_calls.");
    model::ToolCall read;
    read.id = fields.String("id").value_or("");
    const json* function = fields.Object("function");
    if (function == nullptr) {
      fields.Fail("function", "a tool call must hold a function");
      return FromFieldError(error);
    }
    JsonFields inner(*function, &error, where + "tool_calls.function.");
    read.name = inner.String("name").value_or("");
    read.arguments = inner.String("arguments").value_or("");
    if (!inner.ok()) {
      return FromFieldError(error);
    }
    if (read.name.empty()) {
      return BadRequestError(where + "tool_calls", "a tool call must name its function");
    }
    out->push_back(std::move(read));
  }
  return std::nullopt;
}

std::optional<ApiError> ReadMessage(const json& message, size_t index,
                                    const MessageRules& rules, model::ChatMessage* out) {
  const std::string where = fmt::format("messages[{}].", index);
  if (!message.is_object()) {
    return BadRequestError(fmt::format("messages[{}]", index),
                           "a message must be an object");
  }
  FieldError error;
  JsonFields fields(message, &error, where);
  const auto role = fields.String("role");
  out->reasoning_content = fields.String("reasoning_content").value_or("");
  out->tool_call_id = fields.String("tool_call_id").value_or("");
  out->without_eos = fields.Bool("prefix").value_or(false);
  const json* calls = fields.Array("tool_calls");
  if (!fields.ok()) {
    return FromFieldError(error);
  }
  if (!role.has_value()) {
    return BadRequestError(where + "role", "a message must have a role");
  }
  out->role = EncodingRole(*role);
  if (std::find(std::begin(kRoles), std::end(kRoles), out->role) == std::end(kRoles)) {
    return BadRequestError(where + "role",
                           "role must be system, developer, user, assistant or tool");
  }
  if (calls != nullptr) {
    if (auto bad = ReadToolCalls(*calls, where, &out->tool_calls)) {
      return bad;
    }
  }
  return ReadContent(message, where, rules, &out->content);
}

}  // namespace

std::string EncodingRole(std::string role) {
  if (role == "function") {
    return "tool";
  }
  return role == "developer" ? "system" : role;
}

std::optional<ApiError> FindMessages(const json& body, const MessageRules& rules,
                                     const json** messages) {
  FieldError error;
  JsonFields fields(body, &error);
  *messages = fields.Array("messages");
  if (!fields.ok()) {
    return FromFieldError(error);
  }
  if (*messages == nullptr || (*messages)->empty()) {
    return BadRequestError("messages", "messages must hold at least one message");
  }
  if ((*messages)->size() > static_cast<size_t>(rules.max_messages)) {
    return BadRequestError(
        "messages", fmt::format("{} messages, expected at most {}", (*messages)->size(),
                                rules.max_messages));
  }
  return std::nullopt;
}

std::optional<ApiError> ReadMessages(const json& body, const MessageRules& rules,
                                     std::vector<model::ChatMessage>* out) {
  const json* messages = nullptr;
  if (auto bad = FindMessages(body, rules, &messages)) {
    return bad;
  }
  for (size_t i = 0; i < messages->size(); ++i) {
    model::ChatMessage message;
    if (auto bad = ReadMessage((*messages)[i], i, rules, &message)) {
      return bad;
    }
    out->push_back(std::move(message));
  }
  return std::nullopt;
}

}  // namespace tessera::coordinator
