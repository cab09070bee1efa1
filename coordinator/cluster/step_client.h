// GrpcStepExecutor: the coordinator's end of a worker's plan stream. Results are read by
// a thread of its own into a bounded queue, so that Wait is bounded by its deadline and
// not by the network.
#ifndef TESSERA_COORDINATOR_CLUSTER_STEP_CLIENT_H_
#define TESSERA_COORDINATOR_CLUSTER_STEP_CLIENT_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "proto/step_executor.h"

namespace tessera::coordinator {

struct StepClientOptions {
  std::string address;     // of the worker's StepServer, on loopback
  std::string auth_token;  // the group's secret
  int max_message_bytes = 64 << 20;
  // Longest time to reach the worker and have the stream accepted.
  absl::Duration connect_timeout = absl::Seconds(5);
};

// As StepExecutor: one thread submits and waits, Abort comes from any thread. When the
// stream breaks, the results that had come can still be fetched; then calls return
// kUnavailable. Destroying it cancels the stream, with which the worker tears its group
// down.
//
// kInvalidArgument for an address beyond loopback; kUnavailable if the worker does not
// accept the stream in time; kUnauthenticated or kFailedPrecondition as the worker
// refuses it. `clock` is used during the call alone.
absl::StatusOr<std::unique_ptr<proto::StepExecutor>> ConnectStepExecutor(
    const StepClientOptions& options, Clock* clock);

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_CLUSTER_STEP_CLIENT_H_
