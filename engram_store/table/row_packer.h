// RowPacker: from the tensors of a checkpoint to packed rows. It checks what it copies.
#ifndef TESSERA_ENGRAM_STORE_TABLE_ROW_PACKER_H_
#define TESSERA_ENGRAM_STORE_TABLE_ROW_PACKER_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engram_store/table/table_info.h"

namespace tessera::engram_store {

// Refers to the tensors, which must outlive it. Thread-safe.
class RowPacker {
 public:
  // kInvalidArgument when the tensors' sizes are not those of `layout` (which CheckLayout
  // passed).
  static absl::StatusOr<RowPacker> Create(const TableLayout& layout,
                                          std::span<const std::byte> weights,
                                          std::span<const std::byte> scales);

  // Packs rows first_row .. first_row + count - 1 to `destination`, count * row_bytes
  // bytes. kDataLoss, naming the row, for a scale byte 0 or 255.
  absl::Status Pack(uint64_t first_row, uint64_t count, std::byte* destination) const;

 private:
  RowPacker() = default;

  int64_t layer_id_ = 0;
  size_t weight_bytes_ = 0;  // of a row
  size_t scale_bytes_ = 0;   // of a row; 0 for BF16
  std::span<const std::byte> weights_;
  std::span<const std::byte> scales_;
};

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_TABLE_ROW_PACKER_H_
