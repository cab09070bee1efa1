// Row gathers: the inner loop of every source. A row is one contiguous read of row_bytes
// (V4.1: 264 bytes, 5 cache lines), so the cost is DRAM latency; rows ahead are
// prefetched to overlap it.
#ifndef TESSERA_ENGRAM_STORE_TABLE_ROW_GATHER_H_
#define TESSERA_ENGRAM_STORE_TABLE_ROW_GATHER_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"

#include "engram_store/table/shard_map.h"

namespace tessera::engram_store {

// kInvalidArgument, naming the first id that is not below `num_rows`.
absl::Status CheckRowIds(std::span<const uint32_t> row_ids, uint64_t num_rows);

// Copies rows[row_ids[i]] to destination + i * row_bytes for every i. The ids were
// checked.
void GatherRows(const std::byte* rows, size_t row_bytes,
                std::span<const uint32_t> row_ids, std::byte* destination);

// The same for a table in shards: `row_ids` are those of the whole table, and shards[s]
// are the packed rows of shard s of `map`.
void GatherShardedRows(const ShardMap& map, std::span<const std::byte* const> shards,
                       size_t row_bytes, std::span<const uint32_t> row_ids,
                       std::byte* destination);

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_TABLE_ROW_GATHER_H_
