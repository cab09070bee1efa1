// EngineOperations: what people who run a server see of the engine and may tell it,
// beside the doors' Engine: the live requests, the members of the group, and the cordon.
// coordinator/service implements it with the step loop; tests use a fake. It says nothing
// of what a request contains.
#ifndef TESSERA_COORDINATOR_REQUESTS_ENGINE_OPERATIONS_H_
#define TESSERA_COORDINATOR_REQUESTS_ENGINE_OPERATIONS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace tessera::coordinator {

// A report names at most so many requests, those that came first.
inline constexpr size_t kMaxReportedRequests = 200;

// One live request: no token and no text of it.
struct RequestReport {
  std::string id = {};
  std::string tenant = {};
  int32_t priority = 0;
  int32_t num_choices = 1;
  absl::Time arrival = {};
  absl::Time deadline = {};
  bool started = false;  // a plan named it
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  // of the prompt, from the prefix cache
  int64_t completion_tokens = 0;
  int64_t max_tokens = 0;
  // Of its first choice: the DP rank that it runs on, absent while it waits; and how many
  // positions are computed.
  std::optional<int> dp_rank = {};
  int64_t computed_tokens = 0;
};

// One process that registered with the coordinator.
struct MemberReport {
  std::string role;  // "worker" or "engram"
  int64_t rank = 0;  // of a worker in its group, else the shard's index
  std::string address;
  std::string liveness;  // "alive", "suspect" or "dead"
  absl::Time last_heartbeat;
};

struct EngineReport {
  uint64_t epoch = 0;
  absl::Time last_step = absl::InfinitePast();  // on every rank
  bool cordoned = false;
  std::vector<RequestReport> requests;  // in the order in which they came
  int64_t num_requests = 0;             // all of them
  // Copies in host memory, over all DP ranks; 0 where there is no such tier.
  int64_t host_blocks_total = 0;
  int64_t host_blocks_cached = 0;
  int64_t host_tail_blocks_total = 0;
  int64_t host_tail_blocks_cached = 0;
  std::vector<MemberReport> members;  // none where everything is one process
};

// Thread-safe.
class EngineOperations {
 public:
  virtual ~EngineOperations() = default;

  // The list of requests is up to a second old while steps run. Does not block.
  virtual EngineReport Report() = 0;

  // While cordoned the engine takes no new request (kUnavailable) and is not ready, but
  // finishes what it has and stays warm. Ends with SetCordoned(false); a shutdown goes
  // on over it.
  virtual void SetCordoned(bool cordoned) = 0;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_REQUESTS_ENGINE_OPERATIONS_H_
