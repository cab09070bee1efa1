// WeightView: a matrix [rows = out, cols = in] in its checkpoint format, read in place:
// values, and block scales where the format has them. y = x W^T. Kernels decode it as
// they stream it; a value is exactly stored value x scale. Slices share memory with the
// whole, so a rank reads only its rows or columns; scale blocks keep the grid of the
// whole tensor.
//
//   dtype        values                       scales (one per block_rows x block_cols)
//   kF32, kBF16  row-major                    none
//   kF8E4M3      row-major                    F32 (a multiplier) or E8M0
//   kFp4         packed, low nibble = even    E8M0, block 1 x 32
#ifndef TESSERA_KERNELS_WEIGHT_VIEW_H_
#define TESSERA_KERNELS_WEIGHT_VIEW_H_

#include <cstddef>
#include <cstdint>

#include "common/check.h"
#include "model/formats/dtype.h"

namespace tessera::kernels {

struct WeightView {
  const std::byte* data = nullptr;
  model::DType dtype = model::DType::kBF16;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_bytes = 0;  // distance between rows

  const std::byte* scales = nullptr;  // scale of the whole tensor's block [0, 0]
  model::DType scale_dtype = model::DType::kF32;
  int64_t scale_stride = 0;  // scales per block row of the whole tensor
  int64_t block_rows = 0;
  int64_t block_cols = 0;
  int64_t row_offset = 0;  // where this slice starts in the whole tensor
  int64_t col_offset = 0;

  bool has_scales() const { return scales != nullptr; }

  WeightView RowSlice(int64_t begin, int64_t count) const {
    TESSERA_CHECK(begin >= 0 && count >= 0 && begin + count <= rows);
    WeightView out = *this;
    out.data += begin * row_bytes;
    out.rows = count;
    out.row_offset += begin;
    return out;
  }

  // `begin` must be even for kFp4.
  WeightView ColSlice(int64_t begin, int64_t count) const {
    TESSERA_CHECK(begin >= 0 && count >= 0 && begin + count <= cols);
    TESSERA_CHECK(dtype != model::DType::kFp4 || begin % 2 == 0);
    WeightView out = *this;
    out.data += static_cast<size_t>(begin) * model::DTypeBits(dtype) / 8;
    out.cols = count;
    out.col_offset += begin;
    return out;
  }
};

}  // namespace tessera::kernels

#endif  // TESSERA_KERNELS_WEIGHT_VIEW_H_
