#include "cli/client/openai_client.h"

#include <string_view>

#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::cli {
namespace {

using nlohmann::json;

// A message of a server that is shown to the user, never a whole page.
constexpr size_t kMessageBytesMax = 500;

std::string TextOf(const json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

// The `error` of a body or chunk; null when it has none.
const json* ErrorOf(const json& body) {
  if (!body.is_object()) {
    return nullptr;
  }
  const auto it = body.find("error");
  return it != body.end() && !it->is_null() ? &*it : nullptr;
}

std::string MessageOf(const json& error) {
  std::string message;
  if (error.is_object()) {
    message = TextOf(error, "message");
  } else if (error.is_string()) {
    message = error.get<std::string>();
  }
  return message.empty() ? "the server gave no reason"
                         : message.substr(0, kMessageBytesMax);
}

absl::StatusCode CodeOf(int http_status) {
  switch (http_status) {
    case 404:
      return absl::StatusCode::kNotFound;
    case 429:
      return absl::StatusCode::kResourceExhausted;
    case 504:
      return absl::StatusCode::kDeadlineExceeded;
    default:
      // A refused request is not a mistake on the command line, so no kInvalidArgument.
      return http_status / 100 == 5 ? absl::StatusCode::kUnavailable
                                    : absl::StatusCode::kFailedPrecondition;
  }
}

StreamEnd Refused(const HttpReply& reply) {
  const json body = json::parse(reply.body, nullptr, false);
  const json* error = ErrorOf(body);
  const std::string message =
      error != nullptr ? MessageOf(*error) : "the answer is not of the OpenAI API";
  return {
      StatusF(CodeOf(reply.status), "the server answered {}: {}", reply.status, message),
      fmt::format("http {}", reply.status)};
}

StreamEnd Failed(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kDeadlineExceeded:
      return {status, "timeout"};
    case absl::StatusCode::kCancelled:
      return {status, "cancelled"};
    case absl::StatusCode::kUnavailable:
      return {status, "connection"};
    default:
      return {status, "malformed"};
  }
}

StreamEnd BrokenStream(const json& error) {
  const std::string code = error.is_object() ? TextOf(error, "code") : "";
  return {UnavailableF("the server ended the answer: {}", MessageOf(error)),
          fmt::format("stream {}", code.empty() ? "error" : code)};
}

}  // namespace

absl::StatusOr<std::unique_ptr<OpenAiClient>> OpenAiClient::Create(
    HttpClientOptions options, const std::string& api_key) {
  while (options.url.ends_with('/')) {
    options.url.pop_back();
  }
  if (options.url.ends_with("/v1")) {
    options.url.resize(options.url.size() - 3);
  }
  if (!api_key.empty()) {
    options.headers.emplace_back("Authorization", "Bearer " + api_key);
  }
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<HttpClient> http, HttpClient::Create(options));
  return std::unique_ptr<OpenAiClient>(new OpenAiClient(std::move(http)));
}

absl::StatusOr<std::string> OpenAiClient::FirstModel() {
  TESSERA_ASSIGN_OR_RETURN(const HttpReply reply, http_->Get("/v1/models"));
  if (reply.status != 200) {
    return Refused(reply).status;
  }
  const json body = json::parse(reply.body, nullptr, false);
  if (!body.is_object() || !body.contains("data") || !body["data"].is_array()) {
    return DataLossF("/v1/models: expected a list of models");
  }
  for (const json& model : body["data"]) {
    const std::string name = model.is_object() ? TextOf(model, "id") : "";
    if (!name.empty()) {
      return name;
    }
  }
  return absl::NotFoundError("/v1/models: the server lists no model");
}

StreamEnd OpenAiClient::Stream(const std::string& path, json body,
                               const ChunkSink& sink) {
  body["stream"] = true;
  // What a user typed may be no UTF-8; the server gets U+FFFD then.
  const std::string text = body.dump(-1, ' ', false, json::error_handler_t::replace);
  StreamEnd end;
  bool finished = false;
  const auto reply = http_->PostForEvents(path, text, [&](const SseEvent& event) {
    if (event.data == "[DONE]") {
      finished = true;
      // Read on, so that the connection can be used again.
      return true;
    }
    const json chunk = json::parse(event.data, nullptr, false);
    if (!chunk.is_object()) {
      end = Failed(DataLossF("a chunk of the answer is not a JSON object"));
      return false;
    }
    if (const json* error = ErrorOf(chunk)) {
      end = BrokenStream(*error);
      return false;
    }
    finished = finished || !sink(chunk);
    return !finished;
  });
  if (!end.status.ok()) {
    return end;
  }
  if (!reply.ok()) {
    return finished ? end : Failed(reply.status());
  }
  if (finished) {
    return end;
  }
  if (reply->status / 100 != 2) {
    return Refused(*reply);
  }
  if (!reply->body.empty()) {
    return Failed(DataLossF("the answer is not a stream of events"));
  }
  return {UnavailableF("the answer ended before it was complete"), "cut short"};
}

}  // namespace tessera::cli
