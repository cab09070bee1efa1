// The tile registers of the calling thread in software (software_tiles.h), as functions
// that every instruction set may call: nothing here is inline.
#ifndef TESSERA_KERNELS_CPU_SIMD_TILES_TWIN_REGISTERS_H_
#define TESSERA_KERNELS_CPU_SIMD_TILES_TWIN_REGISTERS_H_

#include <cstdint>

#include "kernels/cpu/simd/tiles/tile_ops.h"

namespace tessera::kernels::cpu {

namespace twin_registers {
void Configure(const TileConfig& config);
void Release();
void Zero(int tile);
void Load(int tile, const void* at, int64_t stride);
void Store(int tile, void* at, int64_t stride);
void AddProducts(int sums, int a, int b);
}  // namespace twin_registers

// The kernels of tiles over those registers, with vectors of two instruction sets.
namespace scalar {
extern const TileOps kTileOps;
}
namespace avx512vnni {
extern const TileOps kTileOps;
}

}  // namespace tessera::kernels::cpu

#endif  // TESSERA_KERNELS_CPU_SIMD_TILES_TWIN_REGISTERS_H_
