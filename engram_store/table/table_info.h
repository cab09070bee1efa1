// TableInfo and TableLayout: plain descriptions of one Engram layer's table, shared by
// the table itself, the shards that serve it and the clients that read it. They hold no
// rows.
#ifndef TESSERA_ENGRAM_STORE_TABLE_TABLE_INFO_H_
#define TESSERA_ENGRAM_STORE_TABLE_TABLE_INFO_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "model/formats/dtype.h"

namespace tessera::engram_store {

// One layer's table, as a client sees it.
struct TableInfo {
  int64_t layer_id = 0;
  uint64_t num_rows = 0;
  int64_t width = 0;  // W values
  model::DType format =
      model::DType::kF8E4M3;  // kF8E4M3 with E8M0 scales per 32, or kBF16
  int64_t row_bytes = 0;      // W + W/32, or 2 W
  std::string digest;         // of the rows, equal on every replica

  friend bool operator==(const TableInfo&, const TableInfo&) = default;
};

// How a table is cut into columns: column c holds column_rows[c] rows (its prime), one
// column after the other. The rows of one column all belong to one n-gram order and head.
struct TableLayout {
  int64_t layer_id = 0;
  std::vector<uint32_t> column_rows;
  int64_t width = 0;
  model::DType format = model::DType::kF8E4M3;

  uint64_t num_rows() const;
  // Bytes of one packed row; 0 for a format that no table has.
  int64_t row_bytes() const;
  // With `digest` of the packed rows.
  TableInfo Info(std::string digest) const;

  friend bool operator==(const TableLayout&, const TableLayout&) = default;
};

// Values per E8M0 scale byte of an F8 row.
inline constexpr int64_t kScaleBlock = 32;

// kInvalidArgument, naming the field, for a layout whose sizes no table may have: no
// columns or more than 4096, an empty column, 2^32 rows or more, a width below 1 or above
// 65536, or, of F8 rows, one that is not a multiple of 32, a format other than kF8E4M3
// and kBF16.
absl::Status CheckLayout(const TableLayout& layout);

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_TABLE_TABLE_INFO_H_
