// The request fields that say what the answer must look like: OpenAI's response_format,
// vLLM's structured_outputs and its older guided_* names, the formats of the other
// dialects. They become a GrammarSpec; whether it can be enforced is its compiler's
// business.
#ifndef TESSERA_COORDINATOR_API_GRAMMAR_FIELDS_H_
#define TESSERA_COORDINATOR_API_GRAMMAR_FIELDS_H_

#include <optional>
#include <string>

#include "nlohmann/json_fwd.hpp"

#include "coordinator/api/errors.h"
#include "coordinator/api/http_message.h"
#include "coordinator/grammar/grammar.h"

namespace tessera::coordinator {

// The body again with its keys in the client's order, in which the properties of a schema
// are generated. `request` has passed ReadBody.
nlohmann::ordered_json OrderedBody(const HttpRequest& request);

// Reads response_format, structured_outputs and guided_* of a body. At most one may ask
// for something.
std::optional<ApiError> ReadGrammarFields(const nlohmann::json& body,
                                          const HttpRequest& request,
                                          std::optional<GrammarSpec>* grammar);

// Reads a format whose schema stands beside its type ({type: json_schema, schema: …}), as
// OpenAI's responses and Anthropic have it; the types text and json_object as well.
std::optional<ApiError> ReadFlatFormat(const nlohmann::ordered_json& format,
                                       const std::string& field,
                                       std::optional<GrammarSpec>* grammar);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_GRAMMAR_FIELDS_H_
