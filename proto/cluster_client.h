// ClusterClient: keeps one worker or Engram shard registered with the coordinator and
// beats for it, on a thread of its own. It decides nothing: what a refusal means is for
// its owner to say.
#ifndef TESSERA_PROTO_CLUSTER_CLIENT_H_
#define TESSERA_PROTO_CLUSTER_CLIENT_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "proto/cluster_member.h"

namespace tessera::proto {

struct ClusterClientOptions {
  std::string coordinator_address;  // on loopback
  std::string auth_token;
  absl::Duration call_timeout = absl::Seconds(2);
  // Between attempts while the coordinator cannot be reached; doubles up to the second.
  absl::Duration retry_delay_min = absl::Milliseconds(50);
  absl::Duration retry_delay_max = absl::Seconds(2);
  // The coordinator says how often to beat; never more often than this.
  absl::Duration heartbeat_period_min = absl::Milliseconds(20);
};

// Thread-safe. Destroying it stops the beats and joins the thread within call_timeout.
class ClusterClient {
 public:
  // Called once, on the client's thread, if the coordinator refuses the member for good:
  // wrong token, or another build, model or epoch. The client stops then.
  using RefusedHook = std::function<void(const absl::Status&)>;

  // Returns at once; registration goes on in the background, is retried while the
  // coordinator is away and done again when it has forgotten the member. kInvalidArgument
  // for an address beyond loopback.
  static absl::StatusOr<std::unique_ptr<ClusterClient>> Create(
      const ClusterClientOptions& options, const ClusterMember& member,
      RefusedHook refused);
  virtual ~ClusterClient() = default;

  // Blocks until the member is registered (OK), refused (that error) or the deadline
  // (kDeadlineExceeded).
  virtual absl::Status AwaitRegistered(absl::Time deadline) = 0;
};

}  // namespace tessera::proto

#endif  // TESSERA_PROTO_CLUSTER_CLIENT_H_
