// Messages of proto/api.proto to the plain structs of the coordinator, and back. Internal
// to the gRPC door.
#ifndef TESSERA_COORDINATOR_API_GRPC_API_REQUEST_CONVERT_H_
#define TESSERA_COORDINATOR_API_GRPC_API_REQUEST_CONVERT_H_

#include <vector>

#include "coordinator/api/api_context.h"
#include "coordinator/requests/engine.h"
#include "coordinator/requests/validated_request.h"
#include "model/chat/chat_encoding.h"
#include "proto/api.pb.h"

namespace tessera::coordinator {

// Every field of `options` into `spec`; ranges are ValidatedRequest's business.
void ReadSamplingOptions(const api::v1::SamplingOptions& options, RequestSpec* spec);

std::vector<model::ChatMessage> ReadChatMessages(const api::v1::ChatRequest& request);

// Thinking as asked, or as the server does by default.
model::ChatOptions ReadChatOptions(const ApiContext& context,
                                   const api::v1::ChatRequest& request);

void WriteToken(const TokenEvent& event, api::v1::GeneratedToken* out);
void WriteFinished(const ChoiceFinished& event, api::v1::ChoiceFinished* out);
void WriteUsage(const RequestUsage& usage, api::v1::Usage* out);

// `ids` names the calls: the parser leaves that to the API.
void WriteDelta(const model::TurnParser::Delta& delta, int32_t choice, RequestIds* ids,
                api::v1::ChatDelta* out);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_API_GRPC_API_REQUEST_CONVERT_H_
