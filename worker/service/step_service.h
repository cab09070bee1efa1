// StepServer: the worker's door for plans. It serves tessera.worker.v1.Worker over gRPC
// and hands what comes to the rank's own StepExecutor, in order. One coordinator stream
// at a time: a group has one owner.
//
// When the stream ends, for whatever reason, the executor is aborted: a rank whose
// coordinator is gone must not hold its peers in a collective. A new epoch needs a new
// executor.
#ifndef TESSERA_WORKER_SERVICE_STEP_SERVICE_H_
#define TESSERA_WORKER_SERVICE_STEP_SERVICE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "proto/step_executor.h"

namespace tessera::worker {

struct StepServerOptions {
  // Without TLS only loopback is allowed; port 0 picks one.
  std::string address = "127.0.0.1:0";
  // The group's secret; a stream without it is refused. Not empty.
  std::string auth_token;
  int max_message_bytes = 64 << 20;
  // A step that takes longer has failed.
  absl::Duration step_timeout = absl::Seconds(60);
};

// Thread-safe. Destroying it ends the stream in progress and waits for its handler.
class StepServer {
 public:
  // Listens on return. `executor` and `clock` must outlive it. kInvalidArgument for an
  // address beyond loopback, an address that cannot be bound, or an empty token.
  static absl::StatusOr<std::unique_ptr<StepServer>> Create(
      const StepServerOptions& options, proto::StepExecutor* executor, Clock* clock);
  virtual ~StepServer() = default;

  // "127.0.0.1:PORT", as bound.
  virtual const std::string& address() const = 0;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_SERVICE_STEP_SERVICE_H_
