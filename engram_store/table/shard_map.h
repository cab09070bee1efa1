// ShardMap: which shard holds which row of one table. Every column is cut into S ranges
// of equal size, and shard s holds range s of every column: each shard has the same share
// of every n-gram order. A shard that held whole columns would get all reads of the high
// orders, which hardly ever repeat, while the low orders dedupe in the client.
//
// Inside a shard the ranges lie one after the other in column order, so a local row is
// local_base(column) + (row - first row of the range). Pure arithmetic: no rows, no
// network.
#ifndef TESSERA_ENGRAM_STORE_TABLE_SHARD_MAP_H_
#define TESSERA_ENGRAM_STORE_TABLE_SHARD_MAP_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace tessera::engram_store {

// Where a row lies.
struct ShardedRow {
  uint32_t shard = 0;
  uint32_t local_row = 0;

  friend bool operator==(const ShardedRow&, const ShardedRow&) = default;
};

// A run of consecutive rows of one column that one shard holds; `count` may be 0.
struct RowRange {
  uint32_t first_row = 0;  // global
  uint32_t count = 0;
  uint32_t local_base = 0;
};

// Immutable value; thread-safe.
class ShardMap {
 public:
  // kInvalidArgument: no columns, an empty column, 2^32 rows or more, num_shards
  // outside 1..4096.
  static absl::StatusOr<ShardMap> Create(std::span<const uint32_t> column_rows,
                                         uint32_t num_shards);

  uint32_t num_shards() const { return num_shards_; }
  uint32_t num_columns() const { return static_cast<uint32_t>(columns_.size()); }
  uint64_t num_rows() const { return num_rows_; }
  uint64_t num_local_rows(uint32_t shard) const { return local_rows_[shard]; }

  // `row` must be below num_rows().
  ShardedRow Locate(uint32_t row) const {
    if (num_shards_ == 1) {
      return ShardedRow{.shard = 0, .local_row = row};
    }
    const Column& column = columns_[ColumnOf(row)];
    const uint32_t local = row - column.offset;
    // local / stride; by the rounded reciprocal it is at most one too small.
    auto shard = static_cast<uint32_t>((local * column.stride_reciprocal) >> 32);
    uint32_t rest = local - shard * column.stride;
    if (rest >= column.stride) {
      rest -= column.stride;
      ++shard;
    }
    return ShardedRow{.shard = shard, .local_row = column.local_bases[shard] + rest};
  }

  // What `shard` holds of `column`.
  RowRange Range(uint32_t shard, uint32_t column) const;

 private:
  struct Column {
    uint32_t offset = 0;  // first global row
    uint32_t rows = 0;
    uint32_t stride = 0;                // ceil(rows / S)
    uint64_t stride_reciprocal = 0;     // floor(2^32 / stride)
    std::vector<uint32_t> local_bases;  // [S]
  };
  ShardMap() = default;

  // Columns are nearly equal in size, so a guess by proportion is at most a few steps
  // off.
  size_t ColumnOf(uint32_t row) const {
    size_t column = static_cast<size_t>((row * columns_per_row_) >> 32);
    while (row < columns_[column].offset) {
      --column;
    }
    while (row - columns_[column].offset >= columns_[column].rows) {
      ++column;
    }
    return column;
  }

  uint32_t num_shards_ = 1;
  uint64_t num_rows_ = 0;
  uint64_t columns_per_row_ = 0;  // floor(2^32 C / R): the guess needs no division
  std::vector<Column> columns_;
  std::vector<uint64_t> local_rows_;  // [S]
};

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_TABLE_SHARD_MAP_H_
