#include "engram_store/table/shard_map.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "common/status.h"

namespace tessera::engram_store {
namespace {

constexpr uint32_t kMaxShards = 4096;

}  // namespace

absl::StatusOr<ShardMap> ShardMap::Create(std::span<const uint32_t> column_rows,
                                          uint32_t num_shards) {
  if (num_shards < 1 || num_shards > kMaxShards) {
    return InvalidArgumentF("{} engram shards, expected 1 to {}", num_shards, kMaxShards);
  }
  if (column_rows.empty()) {
    return InvalidArgumentF("an engram table without columns");
  }
  ShardMap map;
  map.num_shards_ = num_shards;
  map.local_rows_.assign(num_shards, 0);
  for (const uint32_t rows : column_rows) {
    if (rows == 0 || map.num_rows_ + rows > std::numeric_limits<uint32_t>::max()) {
      return InvalidArgumentF("a column of {} rows after {} rows", rows, map.num_rows_);
    }
    Column column;
    column.offset = static_cast<uint32_t>(map.num_rows_);
    column.rows = rows;
    column.stride = (rows - 1) / num_shards + 1;
    column.stride_reciprocal = (uint64_t{1} << 32) / column.stride;
    for (uint32_t shard = 0; shard < num_shards; ++shard) {
      column.local_bases.push_back(static_cast<uint32_t>(map.local_rows_[shard]));
      // The last shards of a small column may hold none of it.
      const uint64_t begin = std::min<uint64_t>(rows, uint64_t{shard} * column.stride);
      const uint64_t end = std::min<uint64_t>(rows, begin + column.stride);
      map.local_rows_[shard] += end - begin;
    }
    map.num_rows_ += rows;
    map.columns_.push_back(std::move(column));
  }
  map.columns_per_row_ = (uint64_t{column_rows.size()} << 32) / map.num_rows_;
  return map;
}

RowRange ShardMap::Range(uint32_t shard, uint32_t column) const {
  const Column& in = columns_[column];
  const uint64_t begin = std::min<uint64_t>(in.rows, uint64_t{shard} * in.stride);
  const uint64_t end = std::min<uint64_t>(in.rows, begin + in.stride);
  return RowRange{.first_row = in.offset + static_cast<uint32_t>(begin),
                  .count = static_cast<uint32_t>(end - begin),
                  .local_base = in.local_bases[shard]};
}

}  // namespace tessera::engram_store
