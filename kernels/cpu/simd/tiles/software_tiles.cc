#include "kernels/cpu/simd/tiles/software_tiles.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <iterator>

#include "kernels/cpu/simd/tiles/twin_registers.h"

namespace tessera::kernels::cpu {

bool SoftwareTiles::Require(bool right, const char* reason) {
  if (!right && fault_.empty()) {
    fault_ = reason;
  }
  return fault_.empty();
}

void SoftwareTiles::Configure(const TileConfig& config) {
  const auto* reserved = std::begin(config.reserved);
  if (!Require(config.palette <= 1, "palette that no processor has") ||
      !Require(std::all_of(reserved, std::end(config.reserved),
                           [](uint8_t byte) { return byte == 0; }),
               "reserved bytes that are not zero")) {
    return;
  }
  std::array<Tile, kMaxTiles> shaped = {};
  for (size_t i = 0; config.palette == 1 && i < std::size(config.rows); ++i) {
    const int rows = config.rows[i];
    const int row_bytes = config.row_bytes[i];
    if (!Require(i < kMaxTiles || (rows == 0 && row_bytes == 0),
                 "shape of a tile that does not exist") ||
        !Require(rows <= kMaxTileRows && row_bytes <= kMaxTileRowBytes,
                 "shape beyond 16 rows of 64 bytes") ||
        !Require((rows == 0) == (row_bytes == 0), "shape with one side alone")) {
      return;
    }
    if (i < kMaxTiles) {
      shaped[i].rows = rows;
      shaped[i].row_bytes = row_bytes;
    }
  }
  tiles_ = shaped;
  configured_ = config.palette == 1;
}

void SoftwareTiles::Release() {
  if (fault_.empty()) {
    tiles_ = {};
    configured_ = false;
  }
}

SoftwareTiles::Tile* SoftwareTiles::Usable(int tile) {
  if (!Require(configured_, "tiles without a configuration") ||
      !Require(tile >= 0 && tile < kMaxTiles, "tile that does not exist")) {
    return nullptr;
  }
  Tile& found = tiles_[static_cast<size_t>(tile)];
  return Require(found.rows > 0, "tile without a shape") ? &found : nullptr;
}

void SoftwareTiles::Zero(int tile) {
  if (Tile* const found = Usable(tile)) {
    found->bytes = {};
  }
}

void SoftwareTiles::Load(int tile, const void* at, int64_t stride) {
  if (Tile* const found = Usable(tile)) {
    found->bytes = {};
    for (int row = 0; row < found->rows; ++row) {
      std::memcpy(found->bytes[static_cast<size_t>(row)].data(),
                  static_cast<const std::byte*>(at) + row * stride,
                  static_cast<size_t>(found->row_bytes));
    }
  }
}

void SoftwareTiles::Store(int tile, void* at, int64_t stride) {
  if (const Tile* const found = Usable(tile)) {
    for (int row = 0; row < found->rows; ++row) {
      std::memcpy(static_cast<std::byte*>(at) + row * stride,
                  found->bytes[static_cast<size_t>(row)].data(),
                  static_cast<size_t>(found->row_bytes));
    }
  }
}

void SoftwareTiles::AddProducts(int sums, int a, int b) {
  if (!Require(sums != a && sums != b && a != b, "a tile that is two operands")) {
    return;
  }
  Tile* const to = Usable(sums);
  Tile* const left = Usable(a);
  Tile* const right = Usable(b);
  if (to == nullptr || left == nullptr || right == nullptr ||
      !Require(
          to->row_bytes % 4 == 0 && left->row_bytes % 4 == 0 && right->row_bytes % 4 == 0,
          "rows that are not whole words") ||
      !Require(to->rows == left->rows, "sums and left side of different heights") ||
      !Require(to->row_bytes == right->row_bytes,
               "sums and right side of different widths") ||
      !Require(left->row_bytes / 4 == right->rows,
               "left side as wide as the right one is not high")) {
    return;
  }
  ++products_;
  for (size_t m = 0; m < static_cast<size_t>(to->rows); ++m) {
    for (size_t n = 0; n < static_cast<size_t>(to->row_bytes) / 4; ++n) {
      uint32_t sum;
      std::memcpy(&sum, &to->bytes[m][4 * n], sizeof(sum));
      for (size_t k = 0; k < static_cast<size_t>(left->row_bytes); ++k) {
        const int product =
            static_cast<int8_t>(left->bytes[m][k]) * right->bytes[k / 4][4 * n + k % 4];
        sum += static_cast<uint32_t>(product);
      }
      std::memcpy(&to->bytes[m][4 * n], &sum, sizeof(sum));
    }
  }
}

SoftwareTiles& ThreadTiles() {
  thread_local SoftwareTiles tiles;
  return tiles;
}

namespace twin_registers {

void Configure(const TileConfig& config) { ThreadTiles().Configure(config); }
void Release() { ThreadTiles().Release(); }
void Zero(int tile) { ThreadTiles().Zero(tile); }
void Load(int tile, const void* at, int64_t stride) {
  ThreadTiles().Load(tile, at, stride);
}
void Store(int tile, void* at, int64_t stride) { ThreadTiles().Store(tile, at, stride); }
void AddProducts(int sums, int a, int b) { ThreadTiles().AddProducts(sums, a, b); }

}  // namespace twin_registers
}  // namespace tessera::kernels::cpu
