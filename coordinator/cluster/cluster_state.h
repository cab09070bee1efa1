// ClusterState: the only mutable truth about who belongs to the cell and who lives. One
// lock; every change bumps a version, and readers take immutable snapshots. It makes no
// calls and has no thread: time comes in through the Clock, and the owner sweeps.
//
// A member is alive while its last heartbeat is younger than `dead_after`. Once dead it
// stays dead: it may only come back by registering again. A later registration of the
// same role and rank replaces the earlier one (a worker that restarted), unless that one
// is alive.
#ifndef TESSERA_COORDINATOR_CLUSTER_CLUSTER_STATE_H_
#define TESSERA_COORDINATOR_CLUSTER_CLUSTER_STATE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "proto/cluster_member.h"

namespace tessera::coordinator {

struct ClusterOptions {
  absl::Duration heartbeat_period = absl::Milliseconds(100);
  absl::Duration suspect_after = absl::Milliseconds(300);
  absl::Duration dead_after = absl::Seconds(1);
  uint32_t max_workers = 1024;  // ranks are below
  uint32_t max_shards = 1024;
  // What members must agree with; an empty text asks for nothing.
  std::string build_version;
  std::string numerics_id;
  std::string model_digest;
  std::vector<std::string> table_digests;
  std::vector<proto::MemberSetting> settings;  // of workers; empty asks for nothing
};

enum class Liveness { kAlive, kSuspect, kDead };

struct MemberView {
  uint64_t member_id = 0;
  proto::ClusterMember member;
  Liveness liveness = Liveness::kAlive;
  absl::Time last_heartbeat;
};

// What was true at one version. Immutable.
struct ClusterView {
  uint64_t version = 0;
  uint64_t epoch = 0;
  std::vector<MemberView> members;  // workers by rank, then shards by rank
};

// Thread-safe.
class ClusterState {
 public:
  // `clock` must outlive it.
  ClusterState(const ClusterOptions& options, Clock* clock);

  // The member's id. kFailedPrecondition with both values if its build, numerics id,
  // model digest, table digests, epoch or settings (each that differs) are not ours, or
  // its place is taken by a member that is not dead; kInvalidArgument for a rank out of
  // range or without an address.
  absl::StatusOr<uint64_t> Register(const proto::ClusterMember& member);

  // kNotFound for an id that is unknown, replaced or dead: the member must register
  // again.
  absl::Status Heartbeat(uint64_t member_id);

  // Starts a new epoch: workers of another one are forgotten and refused from now on.
  // Epochs rise; kFailedPrecondition for one that does not.
  absl::Status StartEpoch(uint64_t epoch);

  // Declares a member dead before its heartbeats end: its connection broke or its process
  // exited.
  void MarkDead(uint64_t member_id);

  // Grades every member by the age of its last heartbeat. True if one has changed. The
  // owner calls it a few times per heartbeat period.
  bool Sweep();

  std::shared_ptr<const ClusterView> View() const;

  // The members of the view with the heartbeats that came since it was published.
  std::vector<MemberView> Members() const;
  const ClusterOptions& options() const { return options_; }

 private:
  absl::Status CheckMember(const proto::ClusterMember& member) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A copy of the present view, to be changed and published.
  std::shared_ptr<ClusterView> NextView() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const ClusterOptions options_;
  Clock* const clock_;

  mutable Mutex mutex_;
  uint64_t next_member_id_ ABSL_GUARDED_BY(mutex_) = 1;
  std::shared_ptr<const ClusterView> view_ ABSL_GUARDED_BY(mutex_);
  // Beats do not publish a view: they only move these, in the order of view_->members.
  std::vector<absl::Time> last_heartbeats_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_CLUSTER_CLUSTER_STATE_H_
