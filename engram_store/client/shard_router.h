// ShardRouter: one request's row ids, split by shard without repeats. Text repeats
// n-grams a lot (the start of a sequence, newline runs, " the"), so that a row is fetched
// once and copied to every place that asked for it. Pure arithmetic, no network.
#ifndef TESSERA_ENGRAM_STORE_CLIENT_SHARD_ROUTER_H_
#define TESSERA_ENGRAM_STORE_CLIENT_SHARD_ROUTER_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engram_store/table/shard_map.h"

namespace tessera::engram_store {

// External synchronisation. Keeps its memory from request to request.
class RoutedRows {
 public:
  // Replaces the content by the split of `row_ids`, all below map.num_rows().
  void Route(const ShardMap& map, std::span<const uint32_t> row_ids);

  uint32_t num_shards() const { return static_cast<uint32_t>(shards_.size()); }

  // The distinct local rows of `shard`, in order of first use; valid until the next
  // Route.
  std::span<const uint32_t> local_rows(uint32_t shard) const {
    return shards_[shard].local_rows;
  }

  // Copies `rows`, the packed rows of local_rows(shard)[first..], to every place of the
  // request that wants them. `rows` holds whole rows, no more than are left from `first`.
  void Scatter(uint32_t shard, size_t first, std::span<const std::byte> rows,
               size_t row_bytes, std::byte* destination) const;

 private:
  struct Shard {
    std::vector<uint32_t> local_rows;
    std::vector<uint32_t> first_position;  // of each local row, in the request
  };
  // A cell of the open-addressing set that finds repeats.
  struct Cell {
    uint32_t row = 0;
    uint32_t last_position = 0;
    bool used = false;
  };

  std::vector<Shard> shards_;
  std::vector<uint32_t> next_position_;  // [n] the next place of the same row
  std::vector<Cell> cells_;
};

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_CLIENT_SHARD_ROUTER_H_
