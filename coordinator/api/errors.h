// ApiError: every error that a client of the HTTP API can see, and its shape
// {"error":{"message","type","param","code"}}. The only file that maps Status codes to
// HTTP. Text of libraries and of other processes never reaches a client: what is not the
// client's own fault has a fixed message per kind.
#ifndef TESSERA_COORDINATOR_API_ERRORS_H_
#define TESSERA_COORDINATOR_API_ERRORS_H_

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "coordinator/api/http_message.h"
#include "coordinator/requests/validated_request.h"

namespace tessera::coordinator {

// `code` of a tenant that used up its grant.
inline constexpr char kRateLimitExceeded[] = "rate_limit_exceeded";

struct ApiError {
  int status = 500;
  std::string type;     // "invalid_request_error"…
  std::string code;     // "model_not_found"…; empty: null
  std::string param;    // field of the request; empty: null
  std::string message;  // for people
  std::optional<absl::Duration> retry_after;
};

// 400 invalid_request_error.
ApiError BadRequestError(std::string_view param, std::string message,
                         std::string_view code = "");
// 400 for something that the protocol has and this build does not do.
ApiError UnsupportedError(std::string_view param, std::string message);
// 400 or, for kResourceExhausted, 413, from a field that a validator refused.
ApiError FromFieldError(const FieldError& error);

ApiError InvalidKeyError();                            // 401 invalid_api_key
ApiError ModelNotFoundError(std::string_view model);   // 404 model_not_found
ApiError RouteNotFoundError();                         // 404
ApiError MethodNotAllowedError();                      // 405
ApiError RequestTimeoutError();                        // 408, the client sent too slowly
ApiError IdempotencyKeyReusedError();                  // 409, with another body
ApiError IdempotencyKeyInUseError();                   // 409, come again
ApiError TooLargeError(size_t max_bytes);              // 413
ApiError EncodingError();                              // 415, a content encoding
ApiError HeaderTooLargeError();                        // 431
ApiError MalformedHttpError();                         // 400
ApiError PlainHttpError();                             // 400, where TLS is spoken
ApiError OverloadedError(absl::Duration retry_after);  // 429 overloaded
// 429 rate_limit_exceeded; without `retry_after` it is of no use to come again.
ApiError RateLimitError(std::string message, std::optional<absl::Duration> retry_after);
ApiError ConnectionLimitError();                                    // 503 overloaded
ApiError NotReadyError(bool draining, absl::Duration retry_after);  // 503

// An error that ended a request after the engine took it: 504 deadline, 503 worker_lost,
// engram_unavailable, cancelled or overloaded, 500 internal.
ApiError FromEngineStatus(const absl::Status& status);

// The JSON text of the error.
std::string ErrorBody(const ApiError& error);

// The whole answer, with Retry-After, x-should-retry and Allow where they belong.
HttpResponse ErrorResponse(const ApiError& error);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_ERRORS_H_
