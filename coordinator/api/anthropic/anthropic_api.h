// Anthropic's API: POST /v1/messages and /v1/messages/count_tokens, and its list of
// models. The request side; AnthropicAnswer writes the answer.
#ifndef TESSERA_COORDINATOR_API_ANTHROPIC_ANTHROPIC_API_H_
#define TESSERA_COORDINATOR_API_ANTHROPIC_ANTHROPIC_API_H_

#include <memory>
#include <string_view>

#include "coordinator/api/api_context.h"
#include "coordinator/api/http_message.h"

namespace tessera::coordinator {

// Answers through `writer`, an error included; returns once the request was handed to the
// engine. Beside the fields of Anthropic's reference it takes the shared ones of the
// other routes (seed, min_p, ignore_eos…). metadata is ignored, and so are unknown
// fields.
void HandleMessages(const ApiContext& context, const HttpRequest& request,
                    std::shared_ptr<ResponseWriter> writer);

// The exact number of prompt tokens that the same body costs as a message.
HttpResponse HandleCountTokens(const ApiContext& context, const HttpRequest& request);

// The served models, one page. Of a name that is not served: not_found_error.
HttpResponse ListAnthropicModels(const ApiContext& context);
HttpResponse GetAnthropicModel(const ApiContext& context, std::string_view name,
                               std::string_view request_id);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_ANTHROPIC_ANTHROPIC_API_H_
