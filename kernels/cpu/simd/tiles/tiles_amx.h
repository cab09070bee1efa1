// What simd_tiles.h needs of tile registers, as instructions; what each does is in
// tiles_twin.h. For simd_amx.cc alone.
//
// Spelled out: the intrinsics of gcc 12 take no tile number that is a template argument,
// and their loads do not say that they read memory, so that a store before them may come
// after.
#ifndef TESSERA_KERNELS_CPU_SIMD_TILES_TILES_AMX_H_
#define TESSERA_KERNELS_CPU_SIMD_TILES_TILES_AMX_H_

#include "kernels/cpu/simd/tiles/tile_ops.h"
#include "kernels/cpu/simd/vector_avx512.h"

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

TESSERA_INLINE void TileConfigure(const TileConfig& config) {
  asm volatile("ldtilecfg %0" : : "m"(config));
}
TESSERA_INLINE void TileRelease() { asm volatile("tilerelease" : : : "memory"); }
template <int kTile>
TESSERA_INLINE void TileZero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
template <int kTile>
TESSERA_INLINE void TileLoad(const void* at, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2"
               :
               : "r"(at), "r"(stride), "i"(kTile)
               : "memory");
}
template <int kTile>
TESSERA_INLINE void TileStore(void* at, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)"
               :
               : "r"(at), "r"(stride), "i"(kTile)
               : "memory");
}
template <int kSums, int kSigned, int kUnsigned>
TESSERA_INLINE void TileAddProducts() {
  asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0"
               :
               : "i"(kSums), "i"(kSigned), "i"(kUnsigned));
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_TILES_TILES_AMX_H_
