#include "coordinator/api/anthropic/anthropic_errors.h"

#include "nlohmann/json.hpp"

#include "coordinator/api/json_fields.h"

namespace tessera::coordinator {
namespace {

constexpr int kOverloadedStatus = 529;

// 429 is for limits of the caller's own.
int StatusOf(const ApiError& error) {
  return error.status == 429 && error.code != kRateLimitExceeded ? kOverloadedStatus
                                                                 : error.status;
}

// The types that Anthropic's reference lists for its status codes.
const char* TypeOf(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 504:
      return "timeout_error";
    case kOverloadedStatus:
      return "overloaded_error";
    default:
      return status < 500 ? "invalid_request_error" : "api_error";
  }
}

}  // namespace

nlohmann::json AnthropicErrorJson(const ApiError& error, std::string_view request_id) {
  const std::string message =
      error.param.empty() ? error.message : error.param + ": " + error.message;
  return {{"type", "error"},
          {"error", {{"type", TypeOf(StatusOf(error))}, {"message", message}}},
          {"request_id", request_id}};
}

HttpResponse AnthropicErrorResponse(const ApiError& error, std::string_view request_id) {
  HttpResponse response = ErrorResponse(error);
  response.status = StatusOf(error);
  response.body = DumpJson(AnthropicErrorJson(error, request_id));
  return response;
}

}  // namespace tessera::coordinator
