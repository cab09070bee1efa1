#include "engram_store/client/shard_router.h"

#include <bit>
#include <cstring>
#include <limits>

#include "common/check.h"

namespace tessera::engram_store {
namespace {

constexpr uint32_t kEnd = std::numeric_limits<uint32_t>::max();
// Fibonacci hashing: the high bits of a product with 2^64 / golden ratio.
constexpr uint64_t kHashMultiplier = 0x9E3779B97F4A7C15;

}  // namespace

void RoutedRows::Route(const ShardMap& map, std::span<const uint32_t> row_ids) {
  shards_.resize(map.num_shards());
  for (Shard& shard : shards_) {
    shard.local_rows.clear();
    shard.first_position.clear();
  }
  next_position_.assign(row_ids.size(), kEnd);
  // At most half full, so that probes stay short.
  const size_t num_cells = std::bit_ceil(2 * row_ids.size() + 1);
  const int shift = 64 - std::countr_zero(num_cells);
  cells_.assign(num_cells, Cell{});
  for (size_t i = 0; i < row_ids.size(); ++i) {
    const uint32_t row = row_ids[i];
    const uint32_t position = static_cast<uint32_t>(i);
    size_t index = num_cells == 1 ? 0 : (row * kHashMultiplier) >> shift;
    while (cells_[index].used && cells_[index].row != row) {
      index = (index + 1) & (num_cells - 1);
    }
    Cell& cell = cells_[index];
    if (cell.used) {
      next_position_[cell.last_position] = position;
    } else {
      const ShardedRow place = map.Locate(row);
      shards_[place.shard].local_rows.push_back(place.local_row);
      shards_[place.shard].first_position.push_back(position);
      cell.used = true;
      cell.row = row;
    }
    cell.last_position = position;
  }
}

void RoutedRows::Scatter(uint32_t shard, size_t first, std::span<const std::byte> rows,
                         size_t row_bytes, std::byte* destination) const {
  const Shard& from = shards_[shard];
  const size_t count = rows.size() / row_bytes;
  TESSERA_CHECK_EQ(count * row_bytes, rows.size());
  TESSERA_CHECK_LE(first + count, from.local_rows.size());
  for (size_t i = 0; i < count; ++i) {
    const std::byte* row = rows.data() + i * row_bytes;
    for (uint32_t position = from.first_position[first + i]; position != kEnd;
         position = next_position_[position]) {
      std::memcpy(destination + size_t{position} * row_bytes, row, row_bytes);
    }
  }
}

}  // namespace tessera::engram_store
