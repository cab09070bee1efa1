#include "kernels/cuda/runtime/cuda_tile_map.h"

#include <cstdint>

#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/cuda/runtime/cuda_driver.h"

namespace tessera::kernels::cuda {

absl::StatusOr<CudaTileMap> CudaTileMap::Create(const TileMapShape& shape) {
  // Found once: a launch makes several maps, and the driver stays where it is.
  static const absl::StatusOr<decltype(&cuTensorMapEncodeTiled)> found =
      DriverCall<decltype(&cuTensorMapEncodeTiled)>("cuTensorMapEncodeTiled");
  TESSERA_ASSIGN_OR_RETURN(const auto encode, found);
  CudaTileMap map;
  const cuuint64_t dimensions[2] = {shape.cols, shape.rows};
  const cuuint64_t strides[1] = {shape.row_bytes};
  const cuuint32_t box[2] = {shape.box_cols, shape.box_rows};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult result =
      encode(&map.native,
             shape.element_bytes == 1 ? CU_TENSOR_MAP_DATA_TYPE_UINT8
                                      : CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
             2, const_cast<void*>(shape.data), dimensions, strides, box, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE,
             shape.swizzle == Swizzle::k128 ? CU_TENSOR_MAP_SWIZZLE_128B
                                            : CU_TENSOR_MAP_SWIZZLE_NONE,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    return InvalidArgumentF("cuTensorMapEncodeTiled: error {} for {} x {}, rows {} apart",
                            static_cast<int>(result), shape.rows, shape.cols,
                            shape.row_bytes);
  }
  return map;
}

}  // namespace tessera::kernels::cuda
