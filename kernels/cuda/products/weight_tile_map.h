// The tensor map by which bulk copies read weights for the tensor cores.
#ifndef TESSERA_KERNELS_CUDA_PRODUCTS_WEIGHT_TILE_MAP_H_
#define TESSERA_KERNELS_CUDA_PRODUCTS_WEIGHT_TILE_MAP_H_

#include <cstdint>

#include "absl/status/statusor.h"

#include "kernels/cuda/primitives/device.cuh"
#include "kernels/fp8_products.h"
#include "kernels/weight_view.h"

namespace tessera::kernels::cuda {

inline constexpr uint32_t kWeightTileRows = 64;

// The values of `w`, FP8 or FP4, 64 rows of 128 inputs at a time. FP8 is swizzled for the
// tensor cores, FP4 is not. kInvalidArgument for what a bulk copy cannot read.
inline absl::StatusOr<GpuTileMap> WeightTileMap(const WeightView& w) {
  const bool is_fp4 = w.dtype == model::DType::kFp4;
  const uint32_t in_byte = is_fp4 ? 2 : 1;
  return GpuTileMap::Create({.data = w.data,
                             .element_bytes = 1,
                             .rows = static_cast<uint64_t>(w.rows),
                             .cols = static_cast<uint64_t>(w.cols) / in_byte,
                             .row_bytes = static_cast<uint64_t>(w.row_bytes),
                             .box_rows = kWeightTileRows,
                             .box_cols = static_cast<uint32_t>(kFp8Group) / in_byte,
                             .swizzle = is_fp4 ? Swizzle::kNone : Swizzle::k128});
}

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRODUCTS_WEIGHT_TILE_MAP_H_
