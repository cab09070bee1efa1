// TileOps: the loops that matrix tiles (AMX) run instead of those of a SimdOps table, and
// the shapes of those tiles. Plain data, as in simd_ops.h.
//
// The processor has eight tile registers of at most 16 rows of 64 bytes. A product adds
// to each 32-bit sum of C [m, n] the dot product of row m of A, bytes with sign, and
// column n of B, bytes without: row k of B holds bytes 4 k to 4 k + 3 of all columns.
#ifndef TESSERA_KERNELS_CPU_SIMD_TILES_TILE_OPS_H_
#define TESSERA_KERNELS_CPU_SIMD_TILES_TILE_OPS_H_

#include <cstdint>

#include "kernels/cpu/simd/simd_ops.h"

namespace tessera::kernels::cpu {

constexpr int kMaxTiles = 8;
constexpr int kMaxTileRows = 16;
constexpr int kMaxTileRowBytes = 64;

// What the processor reads to shape its tiles, byte by byte. Reserved bytes are zero.
struct alignas(64) TileConfig {
  uint8_t palette;  // 1; 0 gives all tiles back
  uint8_t start_row;
  uint8_t reserved[14];
  uint16_t row_bytes[16];  // of tile 0 to 7, then reserved
  uint8_t rows[16];        // likewise
};
static_assert(sizeof(TileConfig) == 64);

struct TileOps {
  // As in SimdOps, with the same bits, of rows of x with rounded_value_bytes of 1.
  void (*rounded_linear)(const RoundedTask& task);
  // The first rows of x of a task, as many as suit tiles, with the bits of SimdOps;
  // returns how many, perhaps none. Codes and offsets of x are those of avx512vnni.
  int64_t (*int8_linear)(const Int8Task& task);
  // Runs `rounds` times four products of whole tiles, operands in registers. Returns how
  // many products of bytes that were.
  int64_t (*multiply)(int64_t rounds);
};

// Needs a processor with AMX-INT8 and AVX-512 VNNI, and tile registers that the system
// has granted to the process (tile_support.h).
namespace amx {
extern const TileOps kTileOps;
}

}  // namespace tessera::kernels::cpu

#endif  // TESSERA_KERNELS_CPU_SIMD_TILES_TILE_OPS_H_
