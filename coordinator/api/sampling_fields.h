// The request fields that completions and chat share: the model's name, sampling, stops,
// limits and how the answer is to be sent. Fills a RequestSpec; ranges are
// ValidatedRequest's business.
#ifndef TESSERA_COORDINATOR_API_SAMPLING_FIELDS_H_
#define TESSERA_COORDINATOR_API_SAMPLING_FIELDS_H_

#include <optional>

#include "nlohmann/json_fwd.hpp"

#include "coordinator/api/api_context.h"
#include "coordinator/api/errors.h"
#include "coordinator/api/http_message.h"
#include "coordinator/requests/validated_request.h"

namespace tessera::coordinator {

// How the answer is sent.
struct OutputOptions {
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;  // usage in every chunk
  bool return_token_ids = false;
};

// Reads the shared fields of `body` and the header x-request-timeout-ms; the tenant is
// the key's. Null is absent,
// unknown fields are ignored, fields that this build can't honour are refused. Does not
// read `prompt`, `messages`, `max_completion_tokens` or the two spellings of logprobs.
// nullopt: all well.
std::optional<ApiError> ReadSharedFields(const nlohmann::json& body,
                                         const HttpRequest& request,
                                         const ApiContext& context, RequestSpec* spec,
                                         OutputOptions* output);

// Refuses prompt_logprobs, for dialects that have no place for them.
std::optional<ApiError> RefusePromptLogprobs(const RequestSpec& spec);

// Parses the body of `request` into an object. Refuses content encodings.
std::optional<ApiError> ReadBody(const HttpRequest& request, const ApiContext& context,
                                 nlohmann::json* body);

// Refuses a `model` that is not served; absent is the default model.
std::optional<ApiError> CheckModel(const nlohmann::json& body, const ApiContext& context);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_SAMPLING_FIELDS_H_
