#include "engram_store/table/row_gather.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "common/status.h"

namespace tessera::engram_store {
namespace {

// Rows ahead of the copy: enough to cover DRAM latency behind the out-of-order window;
// more than 16 hurts unaligned rows, because the first lines are evicted again.
constexpr size_t kPrefetchRows = 12;
constexpr size_t kCacheLine = 64;

void PrefetchRow(const std::byte* row, size_t row_bytes) {
  for (size_t offset = 0; offset < row_bytes; offset += kCacheLine) {
    __builtin_prefetch(row + offset);
  }
  __builtin_prefetch(row + row_bytes - 1);  // An unaligned row ends in one more line.
}

// `kRowBytes` known at compile time makes the copy a few vector moves; a copy of variable
// length costs about 30 %. 0 means not known.
template <size_t kRowBytes>
void Gather(const std::byte* rows, size_t row_bytes, std::span<const uint32_t> row_ids,
            std::byte* destination) {
  const size_t bytes = kRowBytes != 0 ? kRowBytes : row_bytes;
  const size_t ahead = std::min(kPrefetchRows, row_ids.size());
  for (size_t i = 0; i < ahead; ++i) {
    PrefetchRow(rows + size_t{row_ids[i]} * bytes, bytes);
  }
  for (size_t i = 0; i < row_ids.size(); ++i) {
    if (i + kPrefetchRows < row_ids.size()) {
      PrefetchRow(rows + size_t{row_ids[i + kPrefetchRows]} * bytes, bytes);
    }
    std::memcpy(destination + i * bytes, rows + size_t{row_ids[i]} * bytes, bytes);
  }
}

// The same for rows spread over shards. A row's place takes two divisions, so it is found
// once, when the row is asked for, and kept until the row is copied.
template <size_t kRowBytes>
void GatherSharded(const ShardMap& map, std::span<const std::byte* const> shards,
                   size_t row_bytes, std::span<const uint32_t> row_ids,
                   std::byte* destination) {
  const size_t bytes = kRowBytes != 0 ? kRowBytes : row_bytes;
  std::array<const std::byte*, kPrefetchRows> places;
  const auto ask_for = [&](size_t i) {
    const ShardedRow place = map.Locate(row_ids[i]);
    const std::byte* const row = shards[place.shard] + size_t{place.local_row} * bytes;
    places[i % kPrefetchRows] = row;
    PrefetchRow(row, bytes);
  };
  const size_t ahead = std::min(kPrefetchRows, row_ids.size());
  for (size_t i = 0; i < ahead; ++i) {
    ask_for(i);
  }
  for (size_t i = 0; i < row_ids.size(); ++i) {
    const std::byte* const row = places[i % kPrefetchRows];
    if (i + kPrefetchRows < row_ids.size()) {
      ask_for(i + kPrefetchRows);
    }
    std::memcpy(destination + i * bytes, row, bytes);
  }
}

// Row sizes that the models in use have: width 32 with one scale, the demo model; width
// 256 with eight scales, V4.1.
constexpr size_t kDemoRowBytes = 33;
constexpr size_t kV41RowBytes = 264;

}  // namespace

absl::Status CheckRowIds(std::span<const uint32_t> row_ids, uint64_t num_rows) {
  // The maximum first, since it vectorises; which id it was is looked for only on
  // failure.
  uint32_t largest = 0;
  for (const uint32_t id : row_ids) {
    largest = std::max(largest, id);
  }
  if (row_ids.empty() || largest < num_rows) {
    return absl::OkStatus();
  }
  const auto bad = std::find_if(row_ids.begin(), row_ids.end(),
                                [num_rows](uint32_t id) { return id >= num_rows; });
  return InvalidArgumentF("engram row {} at {}, expected below {}", *bad,
                          bad - row_ids.begin(), num_rows);
}

void GatherRows(const std::byte* rows, size_t row_bytes,
                std::span<const uint32_t> row_ids, std::byte* destination) {
  switch (row_bytes) {
    case kDemoRowBytes:
      return Gather<kDemoRowBytes>(rows, row_bytes, row_ids, destination);
    case kV41RowBytes:
      return Gather<kV41RowBytes>(rows, row_bytes, row_ids, destination);
    default:
      return Gather<0>(rows, row_bytes, row_ids, destination);
  }
}

void GatherShardedRows(const ShardMap& map, std::span<const std::byte* const> shards,
                       size_t row_bytes, std::span<const uint32_t> row_ids,
                       std::byte* destination) {
  switch (row_bytes) {
    case kDemoRowBytes:
      return GatherSharded<kDemoRowBytes>(map, shards, row_bytes, row_ids, destination);
    case kV41RowBytes:
      return GatherSharded<kV41RowBytes>(map, shards, row_bytes, row_ids, destination);
    default:
      return GatherSharded<0>(map, shards, row_bytes, row_ids, destination);
  }
}

}  // namespace tessera::engram_store
