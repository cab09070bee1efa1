#include "cli/ranks/rank_assembly.h"

#include <cstddef>
#include <memory>
#include <span>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cli/loaded_model.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/client/engram_source.h"
#include "engram_store/client/memory_source.h"
#include "engram_store/table/checkpoint_tables.h"
#include "engram_store/table/engram_table.h"
#include "kernels/kernel_backend.h"
#include "kernels/local_devices.h"
#include "routing/expert_placement.h"
#include "worker/comm/communicator.h"
#include "worker/runner/model_runner.h"
#include "worker/runner/model_shapes.h"
#include "worker/runner/weights/weight_loader.h"

namespace tessera::cli {
namespace {

kernels::BackendOptions BackendOptionsOf(const RankOptions& options) {
  return {.name = options.backend,
          .dtype = options.dtype,
          .cpu_isa = options.cpu_isa,
          .numerics = options.numerics,
          .num_threads = options.num_threads,
          .pin_threads = options.pin_threads};
}

// The runner of a rank that has all else.
absl::Status AddRunner(const LoadedModel& model, const RankOptions& options, Clock* clock,
                       AssembledRank& rank) {
  TESSERA_ASSIGN_OR_RETURN(
      const routing::ExpertPlacement placement,
      routing::MakeStaticPlacement(static_cast<int>(model.config.moe.num_experts),
                                   rank.groups.ep->size(), options.placement_version));
  TESSERA_ASSIGN_OR_RETURN(
      rank.runner, worker::ModelRunner::Create(model.config, options.runner, placement,
                                               {.checkpoint = model.checkpoint.get(),
                                                .backend = rank.backend.get(),
                                                .tp = rank.groups.tp.get(),
                                                .ep = rank.groups.ep.get(),
                                                .node = rank.groups.node.get(),
                                                .rail = rank.groups.rail.get(),
                                                .engram = rank.engram.get(),
                                                .hash = model.hash_or_null(),
                                                .clock = clock}));
  return absl::OkStatus();
}

// All ranks at once: it is a collective.
absl::Status CaptureDecodeSteps(std::span<AssembledRank> ranks) {
  std::vector<absl::Status> results(ranks.size());
  std::vector<std::thread> threads;
  threads.reserve(ranks.size());
  absl::Status started;
  for (size_t i = 0; i < ranks.size() && started.ok(); ++i) {
    try {
      threads.emplace_back([&ranks, &results, i] {
        results[i] = ranks[i].runner->CaptureDecodeSteps();
        if (!results[i].ok()) {
          ranks[i].groups.Abort("a rank could not capture decode steps");
        }
      });
    } catch (const std::system_error& error) {
      started = StatusF(absl::StatusCode::kResourceExhausted, "rank {}: no thread: {}", i,
                        error.what());
      ranks[i].groups.Abort("a rank has no thread");
    }
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  TESSERA_RETURN_IF_ERROR(started);
  // The reason first, not what others heard of it.
  for (const absl::Status& status : results) {
    if (!status.ok() && status.code() != absl::StatusCode::kAborted) {
      return status;
    }
  }
  for (const absl::Status& status : results) {
    TESSERA_RETURN_IF_ERROR(status);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<EngramSourceFactory> ResidentEngram(const LoadedModel& model,
                                                   Clock* clock) {
  if (!model.hash.has_value()) {
    return EngramSourceFactory(
        [](int) { return std::unique_ptr<engram_store::EngramSource>(); });
  }
  TESSERA_ASSIGN_OR_RETURN(
      engram_store::LoadedTables loaded,
      engram_store::LoadEngramTables(model.config, *model.hash, *model.checkpoint, {}));
  std::vector<std::shared_ptr<const engram_store::EngramTable>> tables;
  for (std::unique_ptr<engram_store::EngramTable>& table : loaded.tables) {
    tables.push_back(std::move(table));
  }
  return EngramSourceFactory(
      [tables,
       clock](int) -> absl::StatusOr<std::unique_ptr<engram_store::EngramSource>> {
        return engram_store::CreateResidentSource(clock, tables);
      });
}

absl::Status CheckBackend(const RankOptions& options, const model::ModelConfig& config) {
  kernels::BackendOptions alone = BackendOptionsOf(options);
  alone.num_threads = 1;
  TESSERA_ASSIGN_OR_RETURN(const std::unique_ptr<kernels::KernelBackend> backend,
                           kernels::CreateBackend(alone));
  return backend->CheckShapes(worker::ShapesOf(config));
}

absl::StatusOr<ProcessDevices> DevicesOfProcess(const RankOptions& options,
                                                const HostPosition& position) {
  const kernels::BackendOptions backend = BackendOptionsOf(options);
  ProcessDevices own;
  TESSERA_ASSIGN_OR_RETURN(own.devices, kernels::CreateLocalDevices(backend, 1));
  if (!own.devices->reaches_processes() || position.num_ranks > kernels::kMaxLocalRanks) {
    return own;
  }
  TESSERA_ASSIGN_OR_RETURN(auto of_host,
                           kernels::CreateLocalDevices(backend, position.num_ranks));
  if (of_host->has_collectives()) {
    own.devices = std::move(of_host);
    own.local = position.rank;
  }
  return own;
}

absl::StatusOr<AssembledRank> AssembleRank(
    const LoadedModel& model, const RankOptions& options, const worker::ProcessRank& own,
    RankGroups groups, std::unique_ptr<engram_store::EngramSource> engram, Clock* clock) {
  AssembledRank rank;
  TESSERA_ASSIGN_OR_RETURN(rank.backend, own.devices->CreateBackend(own.local));
  rank.groups = std::move(groups);
  rank.engram = std::move(engram);
  TESSERA_RETURN_IF_ERROR(AddRunner(model, options, clock, rank));
  TESSERA_RETURN_IF_ERROR(rank.runner->CaptureDecodeSteps());
  return rank;
}

absl::StatusOr<std::vector<AssembledRank>> AssembleLocalGroup(
    const LoadedModel& model, const GroupShape& shape, const RankOptions& options,
    const EngramSourceFactory& engram, Clock* clock) {
  TESSERA_ASSIGN_OR_RETURN(
      const std::unique_ptr<kernels::LocalDevices> devices,
      kernels::CreateLocalDevices(BackendOptionsOf(options), shape.num_ranks()));
  return AssembleLocalGroup(model, shape, options, engram, *devices, clock);
}

absl::StatusOr<std::vector<AssembledRank>> AssembleLocalGroup(
    const LoadedModel& model, const GroupShape& shape, const RankOptions& options,
    const EngramSourceFactory& engram, kernels::LocalDevices& devices, Clock* clock) {
  TESSERA_RETURN_IF_ERROR(worker::CheckTensorParallel(model.config, shape.tp));
  TESSERA_ASSIGN_OR_RETURN(std::vector<RankGroups> groups,
                           MakeLocalGroups(shape, &devices, options.comm, clock));
  std::vector<AssembledRank> ranks(groups.size());
  for (size_t i = 0; i < ranks.size(); ++i) {
    AssembledRank& rank = ranks[i];
    const int index = static_cast<int>(i);
    TESSERA_ASSIGN_OR_RETURN(rank.backend, devices.CreateBackend(index));
    rank.groups = std::move(groups[i]);
    TESSERA_ASSIGN_OR_RETURN(rank.engram, engram(index));
    TESSERA_RETURN_IF_ERROR(AddRunner(model, options, clock, rank));
  }
  if (options.runner.decode_graphs) {
    TESSERA_RETURN_IF_ERROR(CaptureDecodeSteps(ranks));
  }
  return ranks;
}

}  // namespace tessera::cli
