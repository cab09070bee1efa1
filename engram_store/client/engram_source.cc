#include "engram_store/client/engram_source.h"

#include "common/status.h"
#include "engram_store/table/row_gather.h"

namespace tessera::engram_store {

absl::Status CheckRequest(std::span<const TableInfo> tables, size_t table,
                          std::span<const uint32_t> row_ids,
                          std::span<const std::byte> destination) {
  if (table >= tables.size()) {
    return InvalidArgumentF("engram table {} of {}", table, tables.size());
  }
  const size_t bytes = row_ids.size() * static_cast<size_t>(tables[table].row_bytes);
  if (destination.size() != bytes) {
    return InvalidArgumentF("a destination of {} bytes, expected {} for {} engram rows",
                            destination.size(), bytes, row_ids.size());
  }
  return CheckRowIds(row_ids, tables[table].num_rows);
}

}  // namespace tessera::engram_store
