#include "cli/bench/engram_sources.h"

#include <algorithm>
#include <utility>

#include "cli/ranks/rank_assembly.h"

#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/client/remote_source.h"
#include "engram_store/client/shared_memory_source.h"
#include "engram_store/service/engram_shard.h"
#include "engram_store/table/checkpoint_tables.h"
#include "engram_store/table/shared_segment.h"

namespace tessera::cli {

using engram_store::EngramSource;

absl::Duration SwitchedSource::TakeStalledTime() {
  return std::exchange(stalled_, absl::ZeroDuration());
}

engram_store::PendingRows SwitchedSource::Issue(size_t table,
                                                std::span<const uint32_t> row_ids,
                                                std::span<std::byte> destination) {
  const absl::Time begin = clock_->Now();
  const engram_store::PendingRows pending = source_->Issue(table, row_ids, destination);
  stalled_ += clock_->Now() - begin;
  return pending;
}

absl::Status SwitchedSource::Wait(engram_store::PendingRows pending,
                                  absl::Time deadline) {
  const absl::Time begin = clock_->Now();
  absl::Status status = source_->Wait(pending, deadline);
  stalled_ += clock_->Now() - begin;
  return status;
}

absl::Status EngramSources::StartShards(const LoadedModel& model, uint32_t num_shards,
                                        Clock* clock) {
  for (uint32_t i = 0; i < num_shards; ++i) {
    engram_store::PackOptions pack;
    pack.shard = {.shard = i, .num_shards = num_shards};
    pack.shared_memory = true;
    pack.prefix_bytes = engram_store::kSegmentHeaderBytes;
    TESSERA_ASSIGN_OR_RETURN(engram_store::LoadedTables loaded,
                             engram_store::LoadEngramTables(model.config, *model.hash,
                                                            *model.checkpoint, pack));
    TESSERA_ASSIGN_OR_RETURN(
        std::shared_ptr<const engram_store::EngramShard> shard,
        engram_store::EngramShard::Create({}, std::move(loaded.manifest),
                                          std::move(loaded.tables)));
    TESSERA_ASSIGN_OR_RETURN(
        std::unique_ptr<engram_store::EngramServer> server,
        engram_store::EngramServer::Create({}, clock, std::move(shard)));
    servers_.push_back(std::move(server));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<EngramSources>> EngramSources::Create(
    const LoadedModel& model, const EngramSourcesOptions& options, Clock* clock) {
  if (!model.hash.has_value()) {
    return InvalidArgumentF("the model has no Engram tables");
  }
  std::unique_ptr<EngramSources> made(new EngramSources());
  engram_store::RemoteSourceOptions remote;
  const auto is_shard = [](const std::string& name) {
    return name == "shm" || name == "remote";
  };
  if (std::ranges::any_of(options.names, is_shard)) {
    TESSERA_RETURN_IF_ERROR(made->StartShards(model, options.num_shards, clock));
    remote.endpoints.expected = made->servers_.front()->shard().manifest();
    for (const auto& server : made->servers_) {
      remote.endpoints.replicas.push_back({server->address()});
    }
  }
  for (const std::string& name : options.names) {
    std::unique_ptr<EngramSource> source;
    if (name == "resident" || (name == "disk" && options.tables.on_disk())) {
      TESSERA_ASSIGN_OR_RETURN(
          const EngramSourceFactory factory,
          OwnEngram(model, name == "disk" ? options.tables : TableOptions{}, clock));
      TESSERA_ASSIGN_OR_RETURN(source, factory(0));
    } else if (name == "shm") {
      TESSERA_ASSIGN_OR_RETURN(source, engram_store::CreateSharedMemorySource(
                                           remote.endpoints, remote.max_pending, clock));
    } else if (name == "remote") {
      TESSERA_ASSIGN_OR_RETURN(source, engram_store::RemoteSource::Create(remote, clock));
    } else {
      return InvalidArgumentF(
          "source \"{}\", expected resident, shm, remote, or with a table folder disk",
          name);
    }
    made->sources_.push_back(std::move(source));
  }
  return made;
}

}  // namespace tessera::cli
