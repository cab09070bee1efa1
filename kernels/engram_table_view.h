// EngramTableView: the packed rows of one Engram layer's table as a device is to read
// them: where they lie in host memory, and how a row id leads to a place. A plain value;
// the memory is its owner's, and is not written while a device knows it.
#ifndef TESSERA_KERNELS_ENGRAM_TABLE_VIEW_H_
#define TESSERA_KERNELS_ENGRAM_TABLE_VIEW_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"

namespace tessera::kernels {

// Rows [first_row, first_row + num_rows) of the whole table are one column's. Shard s has
// the s-th `shard_rows` of them, the last shards fewer or none.
struct EngramColumn {
  uint32_t first_row = 0;
  uint32_t num_rows = 0;
  uint32_t shard_rows = 0;
};

struct EngramTableView {
  std::vector<std::span<const std::byte>> shards;  // rows one after the other
  std::vector<EngramColumn> columns;
  std::vector<uint32_t>
      first_local;  // [columns, shards]: its rows begin there in a shard
  int64_t row_bytes = 0;
};

// kInvalidArgument, saying which: no shard, column or byte of a row, a column without
// rows, with more than its shards hold or with rows that no id of 32 bits names, rows
// outside of a shard's memory.
absl::Status CheckTableView(const EngramTableView& view);

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_ENGRAM_TABLE_VIEW_H_
