// Tensors and weights as kernels take them: a span of the memory that the view reaches,
// with shape and strides. Made on the host from the views of kernels/, passed by value.
#ifndef TESSERA_KERNELS_CUDA_PRIMITIVES_DEVICE_TENSOR_CUH_
#define TESSERA_KERNELS_CUDA_PRIMITIVES_DEVICE_TENSOR_CUH_

#include <cstdint>
#include <type_traits>

#include "common/check.h"
#include "kernels/cuda/primitives/device.cuh"
#include "kernels/tensor_view.h"
#include "kernels/weight_view.h"

namespace tessera::kernels::cuda {

// Rows of `cols` values, which may lie in two levels: row r is [r / inner, r % inner].
template <typename T>
struct DeviceRows {
  GlobalSpan<T> span;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t inner = 1;
  int64_t outer_stride = 0;
  int64_t inner_stride = 0;

  // Where row r begins in the span.
  TESSERA_DEVICE int64_t Begin(int64_t r) const {
    return r / inner * outer_stride + r % inner * inner_stride;
  }
};

// A view of rank 2 or 3: the vectors of its last dimension.
template <typename T>
DeviceRows<T> RowsOf(const TensorView& view) {
  TESSERA_CHECK(view.rank == 2 || view.rank == 3);
  const bool nested = view.rank == 3;
  DeviceRows<T> rows;
  rows.cols = view.dim(view.rank - 1);
  rows.inner = nested ? view.dim(1) : 1;
  rows.rows = view.dim(0) * rows.inner;
  rows.outer_stride = view.stride(0);
  rows.inner_stride = nested ? view.stride(1) : 0;
  rows.span.data = view.as<std::remove_const_t<T>>();
  rows.span.size = view.empty() ? 0
                                : (view.dim(0) - 1) * rows.outer_stride +
                                      (rows.inner - 1) * rows.inner_stride + rows.cols;
  return rows;
}

// A view of rank 1, as rows of one value.
template <typename T>
DeviceRows<T> ColumnOf(const TensorView& view) {
  TESSERA_CHECK_EQ(view.rank, 1);
  DeviceRows<T> rows;
  rows.rows = view.dim(0);
  rows.cols = 1;
  rows.outer_stride = view.stride(0);
  rows.span = {view.as<std::remove_const_t<T>>(),
               view.empty() ? 0 : (view.dim(0) - 1) * view.stride(0) + 1};
  return rows;
}

// A weight in its stored format (weight_view.h). Without data: ones.
struct DeviceWeight {
  GlobalSpan<const uint8_t> values;
  GlobalSpan<const uint8_t> scales;
  DType dtype = DType::kF32;
  DType scale_dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_bytes = 0;
  int64_t scale_stride = 0;
  int64_t block_rows = 1;
  int64_t block_cols = 1;
  int64_t row_offset = 0;
  int64_t col_offset = 0;
};

inline DeviceWeight WeightOf(const WeightView& w) {
  DeviceWeight out;
  out.dtype = w.dtype;
  out.scale_dtype = w.scale_dtype;
  out.rows = w.rows;
  out.cols = w.cols;
  out.row_bytes = w.row_bytes;
  if (w.data != nullptr && w.rows > 0) {
    const auto bits = static_cast<int64_t>(model::DTypeBits(w.dtype));
    out.values = {reinterpret_cast<const uint8_t*>(w.data),
                  (w.rows - 1) * w.row_bytes + (w.cols * bits + 7) / 8};
  }
  if (w.has_scales()) {
    out.scale_stride = w.scale_stride;
    out.block_rows = w.block_rows;
    out.block_cols = w.block_cols;
    out.row_offset = w.row_offset;
    out.col_offset = w.col_offset;
    const int64_t last = (w.row_offset + w.rows - 1) / w.block_rows * w.scale_stride +
                         (w.col_offset + w.cols - 1) / w.block_cols;
    out.scales = {reinterpret_cast<const uint8_t*>(w.scales),
                  (last + 1) * (w.scale_dtype == DType::kF32 ? 4 : 1)};
  }
  return out;
}

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRIMITIVES_DEVICE_TENSOR_CUH_
