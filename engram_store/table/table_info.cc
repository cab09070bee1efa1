#include "engram_store/table/table_info.h"

#include <limits>
#include <numeric>
#include <utility>

#include "common/status.h"

namespace tessera::engram_store {
namespace {

constexpr size_t kMaxColumns = 4096;
constexpr int64_t kMaxWidth = 65536;

}  // namespace

uint64_t TableLayout::num_rows() const {
  return std::accumulate(column_rows.begin(), column_rows.end(), uint64_t{0});
}

int64_t TableLayout::row_bytes() const {
  switch (format) {
    case model::DType::kF8E4M3:
      return width + width / kScaleBlock;
    case model::DType::kBF16:
      return 2 * width;
    default:
      return 0;
  }
}

TableInfo TableLayout::Info(std::string digest) const {
  return TableInfo{.layer_id = layer_id,
                   .num_rows = num_rows(),
                   .width = width,
                   .format = format,
                   .row_bytes = row_bytes(),
                   .digest = std::move(digest)};
}

absl::Status CheckLayout(const TableLayout& layout) {
  if (layout.layer_id < 0) {
    return InvalidArgumentF("engram table of layer {}", layout.layer_id);
  }
  if (layout.column_rows.empty() || layout.column_rows.size() > kMaxColumns) {
    return InvalidArgumentF("engram table with {} columns, expected 1 to {}",
                            layout.column_rows.size(), kMaxColumns);
  }
  for (const uint32_t rows : layout.column_rows) {
    if (rows == 0) {
      return InvalidArgumentF("engram table of layer {} has an empty column",
                              layout.layer_id);
    }
  }
  if (layout.num_rows() > std::numeric_limits<uint32_t>::max()) {
    return InvalidArgumentF("engram table of layer {} has {} rows, expected below 2^32",
                            layout.layer_id, layout.num_rows());
  }
  // Only F8 rows have scales, one per block.
  const int64_t unit = layout.format == model::DType::kF8E4M3 ? kScaleBlock : 1;
  if (layout.width < unit || layout.width > kMaxWidth || layout.width % unit != 0) {
    return InvalidArgumentF("engram row width {}, expected a multiple of {} up to {}",
                            layout.width, unit, kMaxWidth);
  }
  if (layout.row_bytes() == 0) {
    return InvalidArgumentF("engram table of format {}, expected F8_E4M3 or BF16",
                            model::DTypeName(layout.format));
  }
  return absl::OkStatus();
}

}  // namespace tessera::engram_store
