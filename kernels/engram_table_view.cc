#include "kernels/engram_table_view.h"

#include <algorithm>

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::kernels {
namespace {

constexpr uint64_t kMaxRows = uint64_t{1} << 32;  // whose ids are 32 bits

absl::Status CheckColumn(const EngramTableView& view, size_t column) {
  const EngramColumn& of = view.columns[column];
  if (uint64_t{of.first_row} + of.num_rows > kMaxRows) {
    return InvalidArgumentF("engram column {}: rows {} to {} have no ids of 32 bits",
                            column, of.first_row, uint64_t{of.first_row} + of.num_rows);
  }
  const auto num_shards = view.shards.size();
  if (of.num_rows == 0 || of.shard_rows == 0 ||
      (of.num_rows - 1) / of.shard_rows >= num_shards) {
    return InvalidArgumentF("engram column {}: {} rows, {} in each of {} shards", column,
                            of.num_rows, of.shard_rows, num_shards);
  }
  for (size_t shard = 0; shard < num_shards; ++shard) {
    const uint64_t begin =
        std::min<uint64_t>(of.num_rows, uint64_t{shard} * of.shard_rows);
    const uint64_t end = std::min<uint64_t>(of.num_rows, begin + of.shard_rows);
    const uint64_t rows = view.first_local[column * num_shards + shard] + (end - begin);
    const uint64_t held =
        view.shards[shard].size() / static_cast<uint64_t>(view.row_bytes);
    if (begin < end && rows > held) {
      return InvalidArgumentF("engram column {} ends at row {} of shard {}, which has {}",
                              column, rows, shard, held);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckTableView(const EngramTableView& view) {
  if (view.shards.empty() || view.columns.empty() || view.row_bytes < 1 ||
      view.first_local.size() != view.shards.size() * view.columns.size()) {
    return InvalidArgumentF(
        "engram table of {} shards, {} columns, {} places, rows of {} bytes",
        view.shards.size(), view.columns.size(), view.first_local.size(), view.row_bytes);
  }
  for (size_t column = 0; column < view.columns.size(); ++column) {
    TESSERA_RETURN_IF_ERROR(CheckColumn(view, column));
  }
  return absl::OkStatus();
}

}  // namespace tessera::kernels
