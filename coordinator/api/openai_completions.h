// POST /v1/completions: text or token-id prompts in, text out, streamed or whole. Several
// prompts and several choices of each become one answer, its choices numbered prompt by
// prompt.
#ifndef TESSERA_COORDINATOR_API_OPENAI_COMPLETIONS_H_
#define TESSERA_COORDINATOR_API_OPENAI_COMPLETIONS_H_

#include <memory>

#include "coordinator/api/api_context.h"
#include "coordinator/api/http_message.h"

namespace tessera::coordinator {

// Answers through `writer`, an error included; returns once the request was handed to the
// engine.
void HandleCompletion(const ApiContext& context, const HttpRequest& request,
                      std::shared_ptr<ResponseWriter> writer);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_OPENAI_COMPLETIONS_H_
