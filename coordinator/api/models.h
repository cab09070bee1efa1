// GET /v1/models, GET /v1/models/{id}, POST /tokenize, /detokenize and
// /v1/chat/completions/render: what a client asks about the served model, without the
// engine.
#ifndef TESSERA_COORDINATOR_API_MODELS_H_
#define TESSERA_COORDINATOR_API_MODELS_H_

#include <string_view>

#include "coordinator/api/api_context.h"
#include "coordinator/api/http_message.h"

namespace tessera::coordinator {

// The served names, with max_model_len as vLLM's clients expect it.
HttpResponse ListModels(const ApiContext& context);

// One of them, or 404 model_not_found.
HttpResponse GetModel(const ApiContext& context, std::string_view name);

// {prompt | messages, …} -> {count, max_model_len, tokens, token_strs}.
HttpResponse HandleTokenize(const ApiContext& context, const HttpRequest& request);

// The prompt that the same body would have as a chat, without generating anything:
// {prompt, in_reasoning, count, max_model_len, token_ids, tokens: [{id, text, bytes,
// special}]}. Fields of sampling are not looked at, and a prompt over the context is
// shown too.
HttpResponse HandleRender(const ApiContext& context, const HttpRequest& request);

// {tokens} -> {prompt}.
HttpResponse HandleDetokenize(const ApiContext& context, const HttpRequest& request);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_MODELS_H_
