#include "coordinator/api/errors.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

#include "coordinator/api/json_fields.h"

namespace tessera::coordinator {
namespace {

constexpr char kInvalidRequest[] = "invalid_request_error";

nlohmann::json StringOrNull(const std::string& text) {
  return text.empty() ? nlohmann::json(nullptr) : nlohmann::json(text);
}

// The SDKs retry 408, 409, 429 and every 5xx by default; only these can end differently.
bool RetryCanHelp(const ApiError& error) {
  const bool too_large_for_grant =
      error.code == kRateLimitExceeded && !error.retry_after.has_value();
  return error.status == 408 || (error.status == 429 && !too_large_for_grant) ||
         (error.status == 409 && error.retry_after.has_value()) || error.status == 503;
}

// Whole seconds, as Retry-After wants them; at least one.
int64_t RetrySeconds(absl::Duration duration) {
  const double seconds = std::ceil(absl::ToDoubleSeconds(duration));
  return static_cast<int64_t>(std::clamp(seconds, 1.0, 3600.0));
}

}  // namespace

ApiError BadRequestError(std::string_view param, std::string message,
                         std::string_view code) {
  return {400,
          kInvalidRequest,
          std::string(code),
          std::string(param),
          std::move(message),
          std::nullopt};
}

ApiError UnsupportedError(std::string_view param, std::string message) {
  return BadRequestError(param, std::move(message), "unsupported_parameter");
}

ApiError FromFieldError(const FieldError& error) {
  ApiError out =
      BadRequestError(error.param, std::string(error.status.message()), error.code);
  if (error.status.code() == absl::StatusCode::kResourceExhausted) {
    out.status = 413;
  }
  return out;
}

ApiError InvalidKeyError() {
  return {
      401,
      kInvalidRequest,
      "invalid_api_key",
      "",
      "missing or incorrect API key: send it as Authorization: Bearer KEY or x-api-key",
      std::nullopt};
}

ApiError ModelNotFoundError(std::string_view model) {
  // A name is echoed so that the user sees the typo, but never a book.
  constexpr size_t kMaxEcho = 100;
  return {404,
          kInvalidRequest,
          "model_not_found",
          "model",
          fmt::format("the model `{}` does not exist", model.substr(0, kMaxEcho)),
          std::nullopt};
}

ApiError RouteNotFoundError() {
  return {404, kInvalidRequest, "not_found", "", "no such route", std::nullopt};
}

ApiError MethodNotAllowedError() {
  return {405,
          kInvalidRequest,
          "method_not_allowed",
          "",
          "method not allowed on this route",
          std::nullopt};
}

ApiError RequestTimeoutError() {
  return {408,
          kInvalidRequest,
          "request_timeout",
          "",
          "the request did not arrive in time",
          std::nullopt};
}

ApiError IdempotencyKeyReusedError() {
  return {409,
          kInvalidRequest,
          "idempotency_key_reused",
          "Idempotency-Key",
          "a request with this idempotency key had another body or went to another route",
          std::nullopt};
}

ApiError IdempotencyKeyInUseError() {
  return {409,
          kInvalidRequest,
          "idempotency_key_in_use",
          "Idempotency-Key",
          "another request with this idempotency key is under way or was just stopped",
          absl::Seconds(1)};
}

ApiError TooLargeError(size_t max_bytes) {
  return {413,
          kInvalidRequest,
          "request_too_large",
          "",
          fmt::format("the body is larger than {} bytes", max_bytes),
          std::nullopt};
}

ApiError EncodingError() {
  return {415,
          kInvalidRequest,
          "unsupported_content_encoding",
          "",
          "request bodies must not be compressed",
          std::nullopt};
}

ApiError HeaderTooLargeError() {
  return {431,
          kInvalidRequest,
          "headers_too_large",
          "",
          "the request headers are too large",
          std::nullopt};
}

ApiError MalformedHttpError() {
  return {
      400,         kInvalidRequest, "malformed_http", "", "the request is not valid HTTP",
      std::nullopt};
}

ApiError PlainHttpError() {
  return {400,
          kInvalidRequest,
          "https_required",
          "",
          "this port speaks TLS: use https:// instead of http://",
          std::nullopt};
}

ApiError OverloadedError(absl::Duration retry_after) {
  return {429,
          "rate_limit_error",
          "overloaded",
          "",
          "the queue is full, try again later",
          retry_after};
}

ApiError RateLimitError(std::string message, std::optional<absl::Duration> retry_after) {
  return {429, "rate_limit_error", kRateLimitExceeded,
          "",  std::move(message), retry_after};
}

ApiError ConnectionLimitError() {
  return {503,
          "server_error",
          "overloaded",
          "",
          "too many connections, try again later",
          absl::Seconds(1)};
}

ApiError NotReadyError(bool draining, absl::Duration retry_after) {
  return {503,
          "server_error",
          draining ? "shutting_down" : "not_ready",
          "",
          draining ? "the server is shutting down" : "no group is ready to serve",
          retry_after};
}

ApiError FromEngineStatus(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kDeadlineExceeded:
      return {
          504,         "timeout_error", "deadline", "", "the request's deadline passed",
          std::nullopt};
    case absl::StatusCode::kCancelled:
      return {503,         "server_error", "cancelled", "", "the request was cancelled",
              std::nullopt};
    case absl::StatusCode::kResourceExhausted:
      return {429, "rate_limit_error",         "overloaded",
              "",  "the server is overloaded", absl::Seconds(1)};
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kAborted: {
      if (absl::StrContains(status.message(), "shutting down")) {
        return NotReadyError(/*draining=*/true, absl::Seconds(1));
      }
      // The engine names the part that went away at the head of its message.
      const bool engram = absl::StrContains(status.message(), "engram");
      return {503,
              "server_error",
              engram ? "engram_unavailable" : "worker_lost",
              "",
              engram ? "the Engram memory became unavailable"
                     : "a worker was lost while the request ran",
              absl::Seconds(1)};
    }
    default:
      return {500, "server_error", "internal", "", "internal error", std::nullopt};
  }
}

std::string ErrorBody(const ApiError& error) {
  const nlohmann::json body = {{"error",
                                {{"message", error.message},
                                 {"type", error.type},
                                 {"param", StringOrNull(error.param)},
                                 {"code", StringOrNull(error.code)}}}};
  return DumpJson(body);
}

HttpResponse ErrorResponse(const ApiError& error) {
  HttpResponse response;
  response.status = error.status;
  response.body = ErrorBody(error);
  if (error.retry_after.has_value()) {
    response.headers.emplace_back("Retry-After",
                                  fmt::format("{}", RetrySeconds(*error.retry_after)));
  }
  if (error.status == 401) {
    response.headers.emplace_back("WWW-Authenticate", "Bearer");
  }
  response.headers.emplace_back("x-should-retry", RetryCanHelp(error) ? "true" : "false");
  return response;
}

}  // namespace tessera::coordinator
