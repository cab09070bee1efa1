// POST /v1/responses, OpenAI's responses API, without memory: every request brings its
// whole conversation, and nothing of an answer is kept (store is always false). The
// request side; ResponseAnswer writes the answer.
#ifndef TESSERA_COORDINATOR_API_RESPONSES_RESPONSES_API_H_
#define TESSERA_COORDINATOR_API_RESPONSES_RESPONSES_API_H_

#include <memory>

#include "coordinator/api/api_context.h"
#include "coordinator/api/http_message.h"

namespace tessera::coordinator {

// Answers through `writer`, an error included; returns once the request was handed to the
// engine. A previous_response_id is a 404, as of a response that is unknown. What else
// needs memory or constrained decoding is refused by name: conversation, background,
// prompt templates, truncation "auto", JSON formats. Beside the fields of OpenAI's
// reference it takes the shared ones of the other routes (seed, top_k, ignore_eos…).
void HandleResponses(const ApiContext& context, const HttpRequest& request,
                     std::shared_ptr<ResponseWriter> writer);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_RESPONSES_RESPONSES_API_H_
