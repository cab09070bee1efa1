// absl::Status to gRPC and back: the only place where the two meet. Codes keep their
// meaning (common/status.h); both enumerations have the same numbers, which the test
// pins.
#ifndef TESSERA_PROTO_STATUS_CONVERT_H_
#define TESSERA_PROTO_STATUS_CONVERT_H_

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace tessera::proto {

// The same code and message.
grpc::Status ToGrpcStatus(const absl::Status& status);

// The same code and message; a code outside absl's becomes kUnknown.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace tessera::proto

#endif  // TESSERA_PROTO_STATUS_CONVERT_H_
