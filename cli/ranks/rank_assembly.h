// Puts one rank together: kernels, communicators, Engram rows, runner. The same code
// serves ranks that are threads of this process (AssembleLocalGroup) and a rank that is a
// process (AssembleRank).
#ifndef TESSERA_CLI_RANKS_RANK_ASSEMBLY_H_
#define TESSERA_CLI_RANKS_RANK_ASSEMBLY_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cli/loaded_model.h"
#include "cli/ranks/process_group_registry.h"
#include "cli/ranks/rank_groups.h"

#include "common/clock.h"
#include "engram_store/client/engram_source.h"
#include "kernels/kernel_backend.h"
#include "kernels/local_devices.h"
#include "worker/comm/communicator.h"
#include "worker/comm/nccl/device_groups.h"
#include "worker/runner/model_runner.h"

namespace tessera::cli {

struct RankOptions {
  std::string backend = "cpu";
  model::DType dtype = model::DType::kF32;
  std::string cpu_isa = "auto";
  std::string numerics = "f32";  // BackendOptions::numerics
  int num_threads = 1;
  bool pin_threads = false;  // BackendOptions::pin_threads
  worker::CommOptions comm;
  worker::RunnerOptions runner;
  int64_t prefill_ranks = 0;  // of the DP ranks of its group
  uint64_t placement_version = 1;
};

// Members are in order of construction; the runner, last, is destroyed first.
struct AssembledRank {
  std::unique_ptr<kernels::KernelBackend> backend;
  RankGroups groups;
  std::unique_ptr<engram_store::EngramSource> engram;  // null without Engram
  std::unique_ptr<worker::ModelRunner> runner;
};

// A rank's own source of Engram rows; null for a model without Engram.
using EngramSourceFactory =
    std::function<absl::StatusOr<std::unique_ptr<engram_store::EngramSource>>(int rank)>;

// Rows from the tables in this process's memory, packed once and shared by all ranks.
absl::StatusOr<EngramSourceFactory> ResidentEngram(const LoadedModel& model,
                                                   Clock* clock);

// Whether this machine has the backend of `options` and its ops take a model of these
// sizes: to be asked before weights are read and a group is formed. kInvalidArgument:
// not.
absl::Status CheckBackend(const RankOptions& options, const model::ModelConfig& config);

// What a process that is one rank computes on. Devices that reach other processes are
// dealt to the ranks of its host, if they see as many; otherwise each takes the first
// that it sees. Errors of CreateLocalDevices.
struct ProcessDevices {
  std::unique_ptr<kernels::LocalDevices> devices;
  int local = 0;  // its own one
};
absl::StatusOr<ProcessDevices> DevicesOfProcess(const RankOptions& options,
                                                const HostPosition& position);

// `model`, `clock` and what `own` names must outlive the rank. Errors of the parts.
absl::StatusOr<AssembledRank> AssembleRank(
    const LoadedModel& model, const RankOptions& options, const worker::ProcessRank& own,
    RankGroups groups, std::unique_ptr<engram_store::EngramSource> engram, Clock* clock);

// All ranks of a group as parts for threads of this process, in rank order; on devices
// that the backend of `options` has for them.
absl::StatusOr<std::vector<AssembledRank>> AssembleLocalGroup(
    const LoadedModel& model, const GroupShape& shape, const RankOptions& options,
    const EngramSourceFactory& engram, Clock* clock);
// The same on the caller's `devices`, whatever backend `options` names.
absl::StatusOr<std::vector<AssembledRank>> AssembleLocalGroup(
    const LoadedModel& model, const GroupShape& shape, const RankOptions& options,
    const EngramSourceFactory& engram, kernels::LocalDevices& devices, Clock* clock);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_RANKS_RANK_ASSEMBLY_H_
