#include "coordinator/api/grpc/stream_call.h"

#include "coordinator/api/access/limited_engine.h"
#include "coordinator/api/errors.h"

namespace tessera::coordinator {

absl::Status PublicStatus(const absl::Status& status) {
  if (status.ok() || status.code() == absl::StatusCode::kInvalidArgument) {
    return status;
  }
  if (RateRefusalOf(status).has_value()) {
    return absl::ResourceExhaustedError(status.message());
  }
  return absl::Status(status.code(), FromEngineStatus(status).message);
}

}  // namespace tessera::coordinator
