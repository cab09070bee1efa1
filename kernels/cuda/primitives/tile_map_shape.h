// What a bulk tensor copy moves, as the host describes it under either compiler.
#ifndef TESSERA_KERNELS_CUDA_PRIMITIVES_TILE_MAP_SHAPE_H_
#define TESSERA_KERNELS_CUDA_PRIMITIVES_TILE_MAP_SHAPE_H_

#include <cstdint>

namespace tessera::kernels::cuda {

// How a copy lays the rows of a box into shared memory: one after the other, or the same
// with 16-byte pieces exchanged so that the tensor cores read them without conflicts.
enum class Swizzle { kNone, k128 };

// A matrix in global memory and the box of it that one copy moves. What a box has outside
// the matrix is zeros.
struct TileMapShape {
  const void* data = nullptr;
  uint32_t element_bytes = 1;  // 1 or 4
  uint64_t rows = 0;
  uint64_t cols = 0;
  uint64_t row_bytes = 0;  // between rows
  uint32_t box_rows = 0;
  uint32_t box_cols = 0;
  Swizzle swizzle = Swizzle::kNone;
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRIMITIVES_TILE_MAP_SHAPE_H_
