// Tools of a gRPC chat. They are written down as the body of the HTTP door has them and
// read by the same code, so that both doors show, refuse and enforce alike. Internal to
// the gRPC door.
#ifndef TESSERA_COORDINATOR_API_GRPC_TOOLS_CONVERT_H_
#define TESSERA_COORDINATOR_API_GRPC_TOOLS_CONVERT_H_

#include <optional>
#include <string>
#include <vector>

#include "coordinator/api/api_context.h"
#include "coordinator/api/chat/chat_grammar.h"
#include "coordinator/api/errors.h"
#include "model/chat/chat_encoding.h"
#include "proto/api.pb.h"

namespace tessera::coordinator {

// Shows the tools of `request` to the model in `messages`. `body` becomes what
// ConstrainAnswer reads them from. Errors name the tool: too many, a bad name, parameters
// that are no JSON object, a required tool that is not there.
std::optional<ApiError> ReadGrpcTools(const ApiContext& context,
                                      const api::v1::ChatRequest& request,
                                      std::vector<model::ChatMessage>* messages,
                                      ToolDemand* demand, std::string* body);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_GRPC_TOOLS_CONVERT_H_
