// What the processes of one cell agree on beside the model: the coordinator's address,
// the secret, where the Engram shards are.
#ifndef TESSERA_CLI_CELL_OPTIONS_H_
#define TESSERA_CLI_CELL_OPTIONS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "cli/engram/engram_tables.h"
#include "cli/loaded_model.h"
#include "cli/ranks/rank_assembly.h"

#include "common/clock.h"
#include "common/option_table.h"
#include "engram_store/client/engram_source.h"

namespace tessera::cli {

struct CellOptions {
  std::string coordinator;    // "127.0.0.1:8003"; empty: none
  std::string cluster_token;  // the cell's secret
};

// Where a worker gets Engram rows.
struct EngramOptions {
  std::string source = "resident";
  // One entry per shard, in order; replicas of a shard separated by |.
  std::vector<std::string> shard_addresses;
  absl::Duration attempt_timeout = absl::Seconds(1);
  TableOptions tables;  // of a resident source
};

void AddCellOptions(OptionTable* table, CellOptions* options);
void AddEngramOptions(OptionTable* table, EngramOptions* options);

// 256 random bits in hex, for a cell that starts its own processes.
std::string MakeClusterToken();

// "cpu/f32": what ranks of one group must agree on; the backend's numerics_id, and what
// the cache rounds: "cpu/f32+kv-fp8".
std::string NumericsIdOf(const RankOptions& options);

// The source that `options` name, its handshake done; null for a model without Engram. A
// shard that is not up yet is asked again until `deadline`. kInvalidArgument: shm or
// remote without addresses; else as the sources say.
absl::StatusOr<std::unique_ptr<engram_store::EngramSource>> OpenEngramSource(
    const LoadedModel& model, const EngramOptions& options, const std::string& token,
    absl::Time deadline, Clock* clock);

}  // namespace tessera::cli

#endif  // TESSERA_CLI_CELL_OPTIONS_H_
