// From what a chat request asks of its answer (a format, a tool call, tools that may be
// called) to one grammar: free text until a tool's tag, then the call as the tool's
// schema wants it, in the markup of the model's generation.
#ifndef TESSERA_COORDINATOR_API_CHAT_CHAT_GRAMMAR_H_
#define TESSERA_COORDINATOR_API_CHAT_CHAT_GRAMMAR_H_

#include <optional>
#include <string>
#include <string_view>

#include "nlohmann/json_fwd.hpp"

#include "coordinator/api/api_context.h"
#include "coordinator/api/errors.h"
#include "coordinator/requests/validated_request.h"

namespace tessera::coordinator {

// Which tools the answer may or must call.
struct ToolDemand {
  enum class Choice { kNone, kAuto, kRequired };

  Choice choice = Choice::kAuto;
  std::string name;      // the one tool that must be called; empty: any
  bool parallel = true;  // more than one call in a turn
  // Where a tool's schema stands: in `function` of the tool, or in the tool itself.
  bool nested = true;
  std::string_view schema_field = "parameters";

  bool shows_tools() const { return choice != Choice::kNone; }
};

// Sets spec->grammar from the format that it holds, the `tools` of `body` (JSON text that
// ReadBody took) and `demand`.
// `in_reasoning`: the answer begins with its reasoning, behind which the grammar starts.
//
// Schemas of strict tools are enforced or refused; others are enforced where they can be,
// else their arguments are some JSON object. Errors name the tool.
std::optional<ApiError> ConstrainAnswer(const ApiContext& context, std::string_view body,
                                        const ToolDemand& demand, bool in_reasoning,
                                        RequestSpec* spec);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_CHAT_CHAT_GRAMMAR_H_
