// ClusterServer: the gRPC door of ClusterState, where workers and Engram shards register
// and beat. It checks the cell's token and converts; the decisions are ClusterState's.
#ifndef TESSERA_COORDINATOR_CLUSTER_CLUSTER_SERVICE_H_
#define TESSERA_COORDINATOR_CLUSTER_CLUSTER_SERVICE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "coordinator/cluster/cluster_state.h"

namespace tessera::coordinator {

struct ClusterServerOptions {
  // Without TLS only loopback is allowed; port 0 picks one.
  std::string address = "127.0.0.1:0";
  std::string auth_token;  // not empty
  int max_message_bytes = 64 << 10;
};

// Thread-safe. Destroying it ends the calls in progress.
class ClusterServer {
 public:
  // Listens on return. `state` must outlive it. kInvalidArgument for an address beyond
  // loopback or one that cannot be bound, or an empty token.
  static absl::StatusOr<std::unique_ptr<ClusterServer>> Create(
      const ClusterServerOptions& options, ClusterState* state);
  virtual ~ClusterServer() = default;

  // "127.0.0.1:PORT", as bound.
  virtual const std::string& address() const = 0;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_CLUSTER_CLUSTER_SERVICE_H_
