// SoftwareTiles: tile registers as the architecture defines them, in plain C++, for
// machines without them. For tests alone.
//
// What the processor answers with a fault is refused: the first reason stays, and nothing
// that follows has an effect, so that no result of a wrong program can be right.
#ifndef TESSERA_KERNELS_CPU_SIMD_TILES_SOFTWARE_TILES_H_
#define TESSERA_KERNELS_CPU_SIMD_TILES_SOFTWARE_TILES_H_

#include <array>
#include <cstdint>
#include <string>

#include "kernels/cpu/simd/tiles/tile_ops.h"

namespace tessera::kernels::cpu {

// Of one thread; not synchronised.
class SoftwareTiles {
 public:
  // LDTILECFG. Shapes are checked, and all tiles become zero; palette 0 releases them.
  void Configure(const TileConfig& config);
  // TILERELEASE.
  void Release();
  // TILEZERO.
  void Zero(int tile);
  // TILELOADD: row r from at + r * stride. Bytes and rows beyond the shape become zero.
  void Load(int tile, const void* at, int64_t stride);
  // TILESTORED, of the bytes and rows of the shape alone.
  void Store(int tile, void* at, int64_t stride);
  // TDPBSUD: sums[m, n] += the products of row m of `a`, with sign, and column n of `b`,
  // without, modulo 2^32.
  void AddProducts(int sums, int a, int b);

  bool configured() const { return configured_; }
  // Why nothing more is done; empty if nothing was refused.
  const std::string& fault() const { return fault_; }
  // How many products of tiles there were.
  int64_t products() const { return products_; }
  // Forgets everything, a fault too.
  void Reset() { *this = SoftwareTiles(); }

 private:
  struct Tile {
    int rows = 0;
    int row_bytes = 0;
    std::array<std::array<uint8_t, kMaxTileRowBytes>, kMaxTileRows> bytes = {};
  };

  // Sets the fault unless there is one, and returns false, if `right` is false.
  bool Require(bool right, const char* reason);
  // The tile if it can be used now, else null.
  Tile* Usable(int tile);

  bool configured_ = false;
  int64_t products_ = 0;
  std::array<Tile, kMaxTiles> tiles_ = {};
  std::string fault_;
};

// Those of the calling thread behind twin_registers.h.
SoftwareTiles& ThreadTiles();

}  // namespace tessera::kernels::cpu

#endif  // TESSERA_KERNELS_CPU_SIMD_TILES_SOFTWARE_TILES_H_
