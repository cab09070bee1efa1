#include "worker/runner/engram_table_views.h"

#include <cstdint>

#include "engram_store/table/shard_map.h"
#include "engram_store/table/table_info.h"

namespace tessera::worker {

std::optional<kernels::EngramTableView> ViewOf(
    std::span<const std::shared_ptr<const engram_store::EngramTable>> shards) {
  if (shards.empty()) {
    return std::nullopt;
  }
  const engram_store::ShardMap& map = shards[0]->shard_map();
  kernels::EngramTableView view;
  view.row_bytes = shards[0]->info().row_bytes;
  for (const auto& shard : shards) {
    view.shards.push_back(shard->rows());
  }
  for (uint32_t column = 0; column < map.num_columns(); ++column) {
    const engram_store::RowRange first = map.Range(0, column);
    view.columns.push_back({.first_row = first.first_row,
                            .num_rows = shards[0]->layout().column_rows[column],
                            .shard_rows = first.count});
    for (uint32_t shard = 0; shard < map.num_shards(); ++shard) {
      view.first_local.push_back(map.Range(shard, column).local_base);
    }
  }
  return view;
}

}  // namespace tessera::worker
