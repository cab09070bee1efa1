#include "kernels/cuda_sim/tile_map.h"

#include "common/status.h"

namespace tessera::kernels::cuda_sim {
namespace {

constexpr uint64_t kAlignment = 16;
constexpr uint32_t kMaxBox = 256;
constexpr uint64_t kMaxDimension = uint64_t{1} << 32;
constexpr uint64_t kMaxStride = uint64_t{1} << 40;
constexpr uint32_t kSwizzleBytes = 128;

}  // namespace

absl::StatusOr<SimTileMap> SimTileMap::Create(const cuda::TileMapShape& shape) {
  if (reinterpret_cast<uintptr_t>(shape.data) % kAlignment != 0 ||
      shape.row_bytes % kAlignment != 0 || shape.row_bytes >= kMaxStride) {
    return InvalidArgumentF(
        "tensor map: address {} mod {}, rows {} bytes apart, expected multiples of {}",
        reinterpret_cast<uintptr_t>(shape.data) % kAlignment, kAlignment, shape.row_bytes,
        kAlignment);
  }
  if (shape.cols == 0 || shape.rows == 0 || shape.cols > kMaxDimension ||
      shape.rows > kMaxDimension || shape.row_bytes < shape.cols * shape.element_bytes) {
    return InvalidArgumentF("tensor map: {} rows of {} values of {} bytes, {} apart",
                            shape.rows, shape.cols, shape.element_bytes, shape.row_bytes);
  }
  const uint32_t inner = shape.box_cols * shape.element_bytes;
  if (shape.box_cols == 0 || shape.box_rows == 0 || shape.box_cols > kMaxBox ||
      shape.box_rows > kMaxBox || inner % kAlignment != 0 ||
      (shape.swizzle == cuda::Swizzle::k128 && inner > kSwizzleBytes)) {
    return InvalidArgumentF("tensor map: a box of {} rows of {} values of {} bytes",
                            shape.box_rows, shape.box_cols, shape.element_bytes);
  }
  SimTileMap map;
  map.shape_ = shape;
  return map;
}

}  // namespace tessera::kernels::cuda_sim
