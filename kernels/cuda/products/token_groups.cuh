// TokenGroups: which tokens a tile of a grouped product has, and whose weights they meet.
// The products of fp8_gemm.cu and fp4_gemm.cu share it; fp8_gemm.h says what the forms
// are.
#ifndef TESSERA_KERNELS_CUDA_PRODUCTS_TOKEN_GROUPS_CUH_
#define TESSERA_KERNELS_CUDA_PRODUCTS_TOKEN_GROUPS_CUH_

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/primitives/device_tensor.cuh"

namespace tessera::kernels::cuda {

// Tokens begin .. end - 1 and what is behind them in the tile; none where begin >= end.
struct TileRows {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t group = 0;
};

struct TokenGroups {
  enum class Form { kDense, kContiguous, kMasked, kListed };

  Form form = Form::kDense;
  int64_t rows = 0;
  int64_t group_rows = 0;  // of one matrix of weights of all groups
  int64_t max_rows = 0;
  int64_t tiles_of_group = 0;
  DeviceRows<const int32_t> group_of_row;
  DeviceRows<const int32_t> counts;
  DeviceRows<const int32_t> offsets;
  int64_t first_item = 0;
  bool by_item = false;  // a tile for each item, or for each place that one may have

  TESSERA_DEVICE TileRows RowsOfTile(Thread& thread, int64_t tile,
                                     int64_t tile_tokens) const {
    const int64_t begin = tile * tile_tokens;
    switch (form) {
      case Form::kMasked: {
        const int64_t group = tile / tiles_of_group;
        const int64_t first = group * max_rows;
        const int64_t count = thread.Load(counts.span, counts.Begin(group));
        return {first + tile % tiles_of_group * tile_tokens, first + count, group};
      }
      case Form::kContiguous: {
        const int64_t group = thread.Load(group_of_row.span, group_of_row.Begin(begin));
        return {begin, group < 0 ? begin : rows, group};
      }
      case Form::kListed:
        return ListedRows(thread, tile, tile_tokens);
      case Form::kDense:
        break;
    }
    return {begin, rows, 0};
  }
  TESSERA_DEVICE bool IsOf(Thread& thread, int64_t row, int64_t group) const {
    return form != Form::kContiguous ||
           thread.Load(group_of_row.span, group_of_row.Begin(row)) == group;
  }

  // Tiles of a launch.
  int64_t NumTiles(int64_t tile_tokens) const {
    switch (form) {
      case Form::kMasked:
        return rows / max_rows * tiles_of_group;
      case Form::kListed:
        return by_item ? rows : NumPlaces(tile_tokens);
      default:
        return (rows + tile_tokens - 1) / tile_tokens;
    }
  }
  // Of listed tokens: how many tiles there are room for.
  int64_t NumPlaces(int64_t tile_tokens) const {
    return rows / tile_tokens + offsets.rows - 1;
  }

 private:
  // Where group g's items begin among those of the call.
  TESSERA_DEVICE int64_t ItemsBegin(Thread& thread, int64_t g) const {
    const int64_t at = thread.Load(offsets.span, offsets.Begin(g)) - first_item;
    return at < 0 ? 0 : (at > rows ? rows : at);
  }
  // What group g's first tile has in the grid. A place for each: those of a group are at
  // most one more than the whole tiles between where it begins and where it ends.
  TESSERA_DEVICE int64_t GridBegin(Thread& thread, int64_t g, int64_t tile_tokens) const {
    const int64_t at = ItemsBegin(thread, g);
    return by_item ? at : at / tile_tokens + g;
  }
  TESSERA_DEVICE TileRows ListedRows(Thread& thread, int64_t tile,
                                     int64_t tile_tokens) const {
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
    const int64_t first = ItemsBegin(thread, group);
    const int64_t end = ItemsBegin(thread, group + 1);
    if (!by_item) {
      const int64_t place = tile - GridBegin(thread, group, tile_tokens);
      return {place < 0 ? end : first + place * tile_tokens, end, group};
    }
    const bool begins_tile = tile >= first && (tile - first) % tile_tokens == 0;
    return {begins_tile ? tile : end, end, group};
  }
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRODUCTS_TOKEN_GROUPS_CUH_
