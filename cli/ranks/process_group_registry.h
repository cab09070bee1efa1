// ProcessGroupRegistry: how ranks that are processes find each other: the job that mpirun
// started. The one place that knows whether this build has MPI.
#ifndef TESSERA_CLI_RANKS_PROCESS_GROUP_REGISTRY_H_
#define TESSERA_CLI_RANKS_PROCESS_GROUP_REGISTRY_H_

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/clock.h"
#include "worker/comm/communicator.h"

namespace tessera::cli {

// This process's place in a job of worker processes. Outlives the Communicators that it
// made.
class ProcessGroup {
 public:
  virtual ~ProcessGroup() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Collective; start-up only. As MpiRuntime::CreateGroup.
  virtual absl::StatusOr<std::unique_ptr<worker::Communicator>> CreateGroup(
      const std::string& name, int color, const worker::CommOptions& options) = 0;

  // Collective: leaves the job in an orderly way.
  virtual absl::Status Finalize() = 0;
};

// Where shared memory is a file system.
inline constexpr const char* kMemoryDirectory = "/dev/shm";

// True in a process that mpirun started.
bool InProcessGroupJob();

// A rank's place among the ranks of its job on one host.
struct HostPosition {
  int rank = 0;
  int num_ranks = 1;
};

// Of this process; alone where no mpirun started it. It opens nothing: JoinProcessGroup
// may come later. kInvalidArgument: a launcher that does not say it.
absl::StatusOr<HostPosition> PositionOnHost();

// kUnimplemented: a build without MPI. Blocks until all processes of the job have come.
absl::StatusOr<std::unique_ptr<ProcessGroup>> JoinProcessGroup(Clock* clock);

// The command that starts `num_ranks` copies of `arguments` (program first) on this
// machine, cores shared, with the ranks' shared memory as files in `memory_directory`.
// kUnimplemented as above; kNotFound: mpirun is not installed.
absl::StatusOr<std::vector<std::string>> LaunchCommand(
    int num_ranks, const std::string& memory_directory,
    std::span<const std::string> arguments);

// Replaces this process by that job running itself with `arguments` (without the
// program's name). Returns only on failure.
absl::Status ReplaceByJob(int num_ranks, std::span<const std::string> arguments);

// The path of this executable.
std::string SelfPath();

// Ends the process at once after its group died; nothing may wait for a dead peer.
[[noreturn]] void ExitAfterGroupFault(int exit_code);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_RANKS_PROCESS_GROUP_REGISTRY_H_
