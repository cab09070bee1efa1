// Errors in the shape of Anthropic's API:
// {"type":"error","error":{"type","message"},"request_id"}. The errors themselves are
// those of errors.h; only their clothes differ.
#ifndef TESSERA_COORDINATOR_API_ANTHROPIC_ANTHROPIC_ERRORS_H_
#define TESSERA_COORDINATOR_API_ANTHROPIC_ANTHROPIC_ERRORS_H_

#include <string>
#include <string_view>

#include "nlohmann/json_fwd.hpp"

#include "coordinator/api/errors.h"
#include "coordinator/api/http_message.h"

namespace tessera::coordinator {

// The body of an error answer, and the data of an `error` event in a stream. The field in
// error stands before the message.
nlohmann::json AnthropicErrorJson(const ApiError& error, std::string_view request_id);

// The whole answer, with the headers of ErrorResponse. A full queue is 529
// overloaded_error here, which Anthropic's clients know, not OpenAI's 429.
HttpResponse AnthropicErrorResponse(const ApiError& error, std::string_view request_id);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_ANTHROPIC_ANTHROPIC_ERRORS_H_
