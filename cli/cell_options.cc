#include "cli/cell_options.h"

#include <cstdint>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"
#include "fmt/format.h"

#include "common/clock.h"
#include "common/option_table.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/client/engram_source.h"
#include "engram_store/client/remote_source.h"
#include "engram_store/client/shard_handshake.h"
#include "engram_store/client/shared_memory_source.h"
#include "engram_store/table/checkpoint_tables.h"
#include "kernels/backend_traits.h"
#include "model/formats/dtype.h"
#include "worker/layers/cache_layout.h"

namespace tessera::cli {
namespace {

constexpr size_t kMaxPendingRequests = 64;
constexpr absl::Duration kRetryPause = absl::Milliseconds(50);

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> out;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) {
    out.push_back(part);
  }
  return out;
}

absl::StatusOr<std::unique_ptr<engram_store::EngramSource>> OpenOnce(
    const EngramOptions& options, const engram_store::ShardEndpoints& endpoints,
    Clock* clock) {
  if (options.source == "shm") {
    return engram_store::CreateSharedMemorySource(endpoints, kMaxPendingRequests, clock);
  }
  return engram_store::RemoteSource::Create({.endpoints = endpoints,
                                             .max_pending = kMaxPendingRequests,
                                             .attempt_timeout = options.attempt_timeout},
                                            clock);
}

}  // namespace

void AddCellOptions(OptionTable* table, CellOptions* options) {
  table->Heading("Cell");
  table->Add("coordinator", &options->coordinator,
             "address of the coordinator's cluster service, on loopback");
  table
      ->Add("cluster-token", &options->cluster_token,
            "secret that the cell's processes share; prefer TESSERA_CLUSTER_TOKEN")
      .Secret();
}

void AddEngramOptions(OptionTable* table, EngramOptions* options) {
  table->Heading("Engram");
  table
      ->Add("engram-source", &options->source,
            "where rows come from: resident (this process), shm (shards of this host) or "
            "remote (shards over gRPC)")
      .OneOf({"resident", "shm", "remote"});
  table->Add("engram-shard-addresses", &options->shard_addresses,
             "one per shard, in order; replicas of a shard separated by |");
  table->Add("engram-attempt-timeout", &options->attempt_timeout,
             "a lookup that takes longer is sent to the next replica");
  AddTableOptions(table, &options->tables);
}

std::string MakeClusterToken() {
  std::random_device random;
  std::string token;
  for (int word = 0; word < 8; ++word) {
    token += fmt::format("{:08x}", random());
  }
  return token;
}

std::string NumericsIdOf(const RankOptions& options) {
  return fmt::format(
      "{}/{}{}", kernels::NumericsFamily(options.backend),
      options.dtype == model::DType::kF64 ? "f64" : options.numerics,
      options.runner.kv_cache_dtype == worker::KvCacheDtype::kFp8 ? "+kv-fp8" : "");
}

absl::StatusOr<std::unique_ptr<engram_store::EngramSource>> OpenEngramSource(
    const LoadedModel& model, const EngramOptions& options, const std::string& token,
    absl::Time deadline, Clock* clock) {
  if (options.source == "resident" || !model.hash.has_value()) {
    TESSERA_ASSIGN_OR_RETURN(const EngramSourceFactory own,
                             OwnEngram(model, options.tables, clock));
    return own(0);
  }
  if (options.shard_addresses.empty()) {
    return InvalidArgumentF("--engram-source {} needs --engram-shard-addresses",
                            options.source);
  }
  engram_store::ShardEndpoints endpoints;
  endpoints.auth_token = token;
  for (const std::string& shard : options.shard_addresses) {
    endpoints.replicas.push_back(Split(shard, '|'));
  }
  TESSERA_ASSIGN_OR_RETURN(
      endpoints.expected,
      engram_store::LoadExpectedManifest(model.config, *model.hash, *model.checkpoint));
  while (true) {
    absl::StatusOr<std::unique_ptr<engram_store::EngramSource>> source =
        OpenOnce(options, endpoints, clock);
    if (source.ok() || source.status().code() != absl::StatusCode::kUnavailable ||
        clock->Now() + kRetryPause >= deadline) {
      return source;
    }
    clock->Sleep(kRetryPause);
  }
}

}  // namespace tessera::cli
