// The table of tiles: the last include of each file that has one.
#ifndef TESSERA_KERNELS_CPU_SIMD_TILES_TILE_TABLE_H_
#define TESSERA_KERNELS_CPU_SIMD_TILES_TILE_TABLE_H_

// The order is that of use.
// clang-format off
#include "kernels/cpu/simd/rounded/simd_rounded.h"
#include "kernels/cpu/simd/tiles/simd_tiles.h"
#include "kernels/cpu/simd/tiles/simd_fp4_sides.h"
#include "kernels/cpu/simd/tiles/simd_tiles_fp4.h"
// clang-format on

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {

const TileOps kTileOps = {.rounded_linear = TileRoundedLinear,
                          .int8_linear = TileInt8Linear,
                          .multiply = TileMultiply};

}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_TILES_TILE_TABLE_H_
