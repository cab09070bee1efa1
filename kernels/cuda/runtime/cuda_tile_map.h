// CudaTileMap: a tensor map as the driver encodes it, for bulk tensor copies. The twin is
// kernels/cuda_sim/tile_map.h. A plain value that a launch passes as part of its kernel.
#ifndef TESSERA_KERNELS_CUDA_RUNTIME_CUDA_TILE_MAP_H_
#define TESSERA_KERNELS_CUDA_RUNTIME_CUDA_TILE_MAP_H_

#include "absl/status/statusor.h"
#include <cuda.h>

#include "kernels/cuda/primitives/tile_map_shape.h"

namespace tessera::kernels::cuda {

struct CudaTileMap {
  // kInvalidArgument: what the driver refuses; otherwise as CudaStatus.
  static absl::StatusOr<CudaTileMap> Create(const TileMapShape& shape);

  CUtensorMap native = {};
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_RUNTIME_CUDA_TILE_MAP_H_
