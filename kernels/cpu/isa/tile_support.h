// Whether matrix tiles (AMX) may be used in this process, and whether they give the bits
// that they should.
#ifndef TESSERA_KERNELS_CPU_ISA_TILE_SUPPORT_H_
#define TESSERA_KERNELS_CPU_ISA_TILE_SUPPORT_H_

#include "absl/status/status.h"

#include "kernels/cpu/simd/tiles/tile_ops.h"

namespace tessera::kernels::cpu {

// Asks the system for the tile registers, for all threads of this process, now and later;
// again is no harm. An instruction that uses them before is a fault. kFailedPrecondition
// with the system's reason if it refuses. Thread-safe.
absl::Status RequestTiles();

// Runs small products through `tiles` and through the scalar table. kInternal with the
// first output whose bits differ. Takes less than a millisecond.
absl::Status CheckTiles(const TileOps& tiles);

// Both, of the kernels for this machine, which must have CpuIsa::kAmx.
absl::Status PrepareTiles();

}  // namespace tessera::kernels::cpu

#endif  // TESSERA_KERNELS_CPU_ISA_TILE_SUPPORT_H_
