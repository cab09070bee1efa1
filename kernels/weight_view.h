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
//
// A weight that KernelBackend::Prepare has marked `rounded` is multiplied in 8 bits,
// inputs and all. Each leaf of a cut contraction, or the whole row, is divided into
// groups of 32 values from its first one on; the last may be shorter. Of a group of
// weights with the largest magnitude a, the step is 2^e with the smallest e >= -126 for
// which a / 2^e, rounded, is at most 127; of a group of inputs it is a / 127, or 0 where
// a < 2^-100. A value becomes the whole number nearest to value / step (of inputs: to
// value * (127 / a)), ties to even. A group's sum of products of whole numbers, exact,
// times the product of the two steps is added by a fused multiply-add in float32 to one
// sum for each leaf, groups rising; then the tree over the leaves. A group with a NaN or
// an infinity makes what it meets NaN.
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

  bool rounded = false;
  // The backend's own copy of a rounded weight, and where this slice starts in it; null
  // on a backend that reads the checkpoint's.
  const void* packed = nullptr;
  int64_t packed_row = 0;

  bool has_scales() const { return scales != nullptr; }

  WeightView RowSlice(int64_t begin, int64_t count) const {
    TESSERA_CHECK(begin >= 0 && count >= 0 && begin + count <= rows);
    WeightView out = *this;
    out.data += begin * row_bytes;
    out.rows = count;
    out.row_offset += begin;
    out.packed_row += begin;
    return out;
  }

  // `begin` must be even for kFp4. Not of a rounded weight, whose groups begin at column
  // 0.
  WeightView ColSlice(int64_t begin, int64_t count) const {
    TESSERA_CHECK(!rounded);
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
