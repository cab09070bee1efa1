// SimTileMap: the twin of a tensor map (CUtensorMap) of rank 2, and where a copy through
// it puts each piece of a box. The rules are those of cuTensorMapEncodeTiled, the swizzle
// is that of the PTX ISA for bulk tensor copies.
#ifndef TESSERA_KERNELS_CUDA_SIM_TILE_MAP_H_
#define TESSERA_KERNELS_CUDA_SIM_TILE_MAP_H_

#include <cstdint>

#include "absl/status/statusor.h"

#include "kernels/cuda/primitives/tile_map_shape.h"

namespace tessera::kernels::cuda_sim {

// As aligned as the driver wants it of a tensor map in global memory.
class alignas(64) SimTileMap {
 public:
  SimTileMap() = default;
  // kInvalidArgument: what the driver refuses.
  static absl::StatusOr<SimTileMap> Create(const cuda::TileMapShape& shape);

  const cuda::TileMapShape& shape() const { return shape_; }
  uint32_t box_bytes() const {
    return shape_.box_cols * shape_.box_rows * shape_.element_bytes;
  }

 private:
  cuda::TileMapShape shape_;
};

// Bits 4 to 6 of an address of shared memory meet bits 7 to 9: in a tile that begins at a
// multiple of 1024, piece p of 16 bytes of row r of 128 bytes lies at p ^ (r % 8).
constexpr uint32_t Swizzled(uint32_t address) {
  return address ^ ((address >> 7 & 7U) << 4);
}

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_TILE_MAP_H_
