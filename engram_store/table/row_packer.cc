#include "engram_store/table/row_packer.h"

#include <cstring>

#include "common/check.h"
#include "common/status.h"

namespace tessera::engram_store {

absl::StatusOr<RowPacker> RowPacker::Create(const TableLayout& layout,
                                            std::span<const std::byte> weights,
                                            std::span<const std::byte> scales) {
  RowPacker packer;
  packer.layer_id_ = layout.layer_id;
  const bool has_scales = layout.format == model::DType::kF8E4M3;
  packer.scale_bytes_ = has_scales ? static_cast<size_t>(layout.width / kScaleBlock) : 0;
  packer.weight_bytes_ = static_cast<size_t>(layout.row_bytes()) - packer.scale_bytes_;
  packer.weights_ = weights;
  packer.scales_ = scales;
  const uint64_t rows = layout.num_rows();
  if (weights.size() != rows * packer.weight_bytes_) {
    return InvalidArgumentF(
        "engram table of layer {}: {} bytes of weights, expected {} rows "
        "of {}",
        layout.layer_id, weights.size(), rows, packer.weight_bytes_);
  }
  if (scales.size() != rows * packer.scale_bytes_) {
    return InvalidArgumentF(
        "engram table of layer {}: {} bytes of scales, expected {} rows "
        "of {}",
        layout.layer_id, scales.size(), rows, packer.scale_bytes_);
  }
  return packer;
}

absl::Status RowPacker::Pack(uint64_t first_row, uint64_t count,
                             std::byte* destination) const {
  TESSERA_CHECK_LE((first_row + count) * weight_bytes_, weights_.size());
  for (uint64_t row = first_row; row < first_row + count; ++row) {
    std::memcpy(destination, weights_.data() + row * weight_bytes_, weight_bytes_);
    destination += weight_bytes_;
    for (size_t i = 0; i < scale_bytes_; ++i) {
      const std::byte scale = scales_[row * scale_bytes_ + i];
      // Kernels shift the byte into a float's exponent, which turns 0 into 0 and 255 into
      // infinity, where the format means 2^-127 and NaN.
      if (scale == std::byte{0} || scale == std::byte{255}) {
        return DataLossF("engram table of layer {}: scale byte {} in row {}", layer_id_,
                         static_cast<int>(scale), row);
      }
      *destination++ = scale;
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera::engram_store
