// TileItems: which tokens a tile of a product has, and whose weights they meet. The
// products of fp8_gemm.cu and fp4_gemm.cu share it.
#ifndef TESSERA_KERNELS_CUDA_PRODUCTS_TILE_ITEMS_CUH_
#define TESSERA_KERNELS_CUDA_PRODUCTS_TILE_ITEMS_CUH_

#include <cstdint>

#include "kernels/cuda/primitives/device_tensor.cuh"

namespace tessera::kernels::cuda {

// Tokens begin .. end - 1 and what is behind them in the tile; none where begin >= end.
struct TileRows {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t group = 0;
};

// All rows are of one group, or they are ListedItems.
struct TileItems {
  int64_t rows = 0;
  DeviceRows<const int32_t> offsets;  // without rows: one group
  int64_t first = 0;                  // item of row 0
  bool by_item = false;  // a tile for each item, or for each place that one may have

  TESSERA_DEVICE TileRows RowsOfTile(Thread& thread, int64_t tile,
                                     int64_t tile_tokens) const {
    if (offsets.rows == 0) {
      return {tile * tile_tokens, rows, 0};
    }
    // The last group that begins at `tile` or before. By item, groups of no items begin
    // where the next does; it is the last of those.
    int64_t group = 0;
    int64_t behind = offsets.rows - 1;
    while (behind - group > 1) {
      const int64_t middle = (group + behind) / 2;
      if (GridBegin(thread, middle, tile_tokens) <= tile) {
        group = middle;
      } else {
        behind = middle;
      }
    }
    const int64_t begin = RowOf(thread, group);
    const int64_t end = RowOf(thread, group + 1);
    if (!by_item) {
      const int64_t place = tile - GridBegin(thread, group, tile_tokens);
      return {place < 0 ? end : begin + place * tile_tokens, end, group};
    }
    const bool begins_tile = tile >= begin && (tile - begin) % tile_tokens == 0;
    return {begins_tile ? tile : end, end, group};
  }

  // Tiles of a launch: the host knows no more of items than how many there may be.
  int64_t NumTiles(int64_t tile_tokens) const {
    if (offsets.rows == 0) {
      return (rows + tile_tokens - 1) / tile_tokens;
    }
    return by_item ? rows : NumPlaces(tile_tokens);
  }
  // Of items: how many tiles there are room for.
  int64_t NumPlaces(int64_t tile_tokens) const {
    return rows / tile_tokens + offsets.rows - 1;
  }

 private:
  // Where group g's items begin among the rows.
  TESSERA_DEVICE int64_t RowOf(Thread& thread, int64_t g) const {
    const int64_t at = thread.Load(offsets.span, offsets.Begin(g)) - first;
    return at < 0 ? 0 : (at > rows ? rows : at);
  }
  // What group g's first tile has in the grid. A place for each: those of a group are at
  // most one more than the whole tiles between where it begins and where it ends.
  TESSERA_DEVICE int64_t GridBegin(Thread& thread, int64_t g, int64_t tile_tokens) const {
    const int64_t at = RowOf(thread, g);
    return by_item ? at : at / tile_tokens + g;
  }
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRODUCTS_TILE_ITEMS_CUH_
