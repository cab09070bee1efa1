// What simd_tiles.h needs of tile registers, in software (software_tiles.h). For the
// twins alone.
#ifndef TESSERA_KERNELS_CPU_SIMD_TILES_TILES_TWIN_H_
#define TESSERA_KERNELS_CPU_SIMD_TILES_TILES_TWIN_H_

#include "kernels/cpu/simd/tiles/twin_registers.h"

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

TESSERA_INLINE void TileConfigure(const TileConfig& config) {
  twin_registers::Configure(config);
}
TESSERA_INLINE void TileRelease() { twin_registers::Release(); }
template <int kTile>
TESSERA_INLINE void TileZero() {
  twin_registers::Zero(kTile);
}
template <int kTile>
TESSERA_INLINE void TileLoad(const void* at, int64_t stride) {
  twin_registers::Load(kTile, at, stride);
}
template <int kTile>
TESSERA_INLINE void TileStore(void* at, int64_t stride) {
  twin_registers::Store(kTile, at, stride);
}
template <int kSums, int kSigned, int kUnsigned>
TESSERA_INLINE void TileAddProducts() {
  twin_registers::AddProducts(kSums, kSigned, kUnsigned);
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_TILES_TILES_TWIN_H_
