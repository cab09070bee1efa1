// What of JSON Schema can be enforced while tokens are sampled. A keyword that the
// grammar library would drop silently is refused here, so that a schema that compiles
// yields only values that it allows. Annotations (title, description, default, format of
// no meaning to us…) pass.
//
// Enforced: type; const and enum (beside them only a type that all values have); anyOf;
// $ref into the document, alone; properties, required, additionalProperties,
// minProperties, maxProperties; items, prefixItems, minItems, maxItems; minLength and
// maxLength, or pattern; minimum, maximum and their exclusive twins. Objects have only
// the properties that the schema names unless additionalProperties allows more, in its
// order.
#ifndef TESSERA_COORDINATOR_GRAMMAR_SCHEMA_RULES_H_
#define TESSERA_COORDINATOR_GRAMMAR_SCHEMA_RULES_H_

#include "absl/status/status.h"
#include "nlohmann/json_fwd.hpp"

#include "coordinator/grammar/grammar_limits.h"

namespace tessera::coordinator {

// kInvalidArgument names the keyword and where it stands.
absl::Status CheckSchema(const nlohmann::ordered_json& schema,
                         const GrammarLimits& limits);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_GRAMMAR_SCHEMA_RULES_H_
