// ProcessCell: groups whose ranks are worker processes that register with this
// coordinator. With a launch plan it also starts them, as one MPI job, and the Engram
// shards that they read; it watches all of them, ends the group as soon as one is gone,
// and starts what is missing when the engine asks for the next group. Without a plan it
// waits for workers that somebody else starts.
#ifndef TESSERA_CLI_PROCESS_CELL_H_
#define TESSERA_CLI_PROCESS_CELL_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/child_process.h"
#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"
#include "cli/scratch_directory.h"
#include "cli/server_options.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "coordinator/cluster/cluster_service.h"
#include "coordinator/cluster/cluster_state.h"
#include "coordinator/service/rank_group.h"

namespace tessera::cli {

// How to start the cell's processes; the cell adds addresses, epoch and shard indices.
struct LaunchPlan {
  std::vector<std::string> worker_arguments;  // of one rank: program, "worker", options
  std::vector<std::string> engram_arguments;  // of one shard: program, "engram", options
  int num_shards = 0;                         // 0: workers hold the tables themselves
  int num_replicas = 1;
  std::string engram_source = "shm";
};

struct ProcessCellOptions {
  int num_ranks = 1;
  std::string token;
  std::string address = "127.0.0.1:0";  // of the cluster service
  coordinator::ClusterOptions cluster;
  std::optional<LaunchPlan> launch;
  absl::Duration form_timeout = absl::Seconds(60);
  // For the job's launcher, which ends its ranks and removes their shared memory.
  absl::Duration stop_grace = absl::Seconds(3);
};

// As GroupProvider says; Stop from any thread.
class ProcessCell final : public coordinator::GroupProvider {
 public:
  // Serves registrations on return. kInvalidArgument, kUnavailable: the address.
  static absl::StatusOr<std::unique_ptr<ProcessCell>> Create(
      const ProcessCellOptions& options, Clock* clock);
  ~ProcessCell() override;

  absl::StatusOr<coordinator::RankExecutors> Form(uint64_t epoch) override;
  void OnGroupFailed(uint64_t epoch, const absl::Status& reason) override;
  absl::Status CheckGroup(uint64_t epoch) override;
  std::vector<coordinator::MemberReport> Members() const override;
  // Stops everything: the thread that forms groups is about to end, and the kernel ends
  // with it the processes that it started, but less gently.
  void CancelForm() override { Stop(); }

  // Stops the job and the shards; none is started from now on. Idempotent.
  void Stop();

  const std::string& address() const { return server_->address(); }

 private:
  struct Shard {
    std::unique_ptr<ChildProcess> process;
    std::string address;  // as registered by this process
  };

  ProcessCell(const ProcessCellOptions& options, Clock* clock);

  absl::Status StartShard(size_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status EnsureShards(absl::Time deadline);
  absl::Status StartJob(uint64_t epoch);
  // Addresses of all ranks once every one is registered and alive.
  absl::StatusOr<std::vector<std::string>> AwaitWorkers(uint64_t epoch,
                                                        absl::Time deadline);
  absl::Status CheckJob();
  void Watch();
  // Why the present group cannot go on, or OK.
  absl::Status FindFault();
  bool ShardHasReplica(size_t shard) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::string ShardAddress(size_t index) const;
  // The member that was shard `index` is no more, whatever its heartbeats said.
  void ForgetShard(size_t index);

  const ProcessCellOptions options_;
  Clock* const clock_;
  coordinator::ClusterState state_;
  std::unique_ptr<coordinator::ClusterServer> server_;
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> stopping_{false};

  Mutex mutex_;
  std::vector<Shard> shards_ ABSL_GUARDED_BY(mutex_);  // [num_shards * num_replicas]
  // Of the jobs; null where others start the workers.
  std::unique_ptr<ScratchDirectory> memory_;
  std::unique_ptr<ChildProcess> job_ ABSL_GUARDED_BY(mutex_);
  coordinator::RankExecutors executors_ ABSL_GUARDED_BY(mutex_);  // of the live group
  absl::Status fault_ ABSL_GUARDED_BY(mutex_);                    // of the present group
  std::vector<uint64_t> group_members_ ABSL_GUARDED_BY(mutex_);
  std::thread watcher_;
};

// What `serve` and `coordinator` have in common: limits and identity of the members.
// Token, address and launch plan are the caller's.
ProcessCellOptions CellOptionsOf(const ServerOptions& options, const LoadedModel& model,
                                 const RankOptions& rank, const GroupShape& shape);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_PROCESS_CELL_H_
