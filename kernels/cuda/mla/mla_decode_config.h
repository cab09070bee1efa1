// Whether and how the MLA decode of mla_decode.h takes a shape: pure functions, so that
// they can be read and tested without a device. Nothing that they choose changes a bit of
// a result.
#ifndef TESSERA_KERNELS_CUDA_MLA_MLA_DECODE_CONFIG_H_
#define TESSERA_KERNELS_CUDA_MLA_MLA_DECODE_CONFIG_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "kernels/row_format.h"

namespace tessera::kernels::cuda {

// The widths that the kernel is written for, in values: those of V3 and its family.
inline constexpr int64_t kMlaLatent = 512;
inline constexpr int64_t kMlaRope = 64;
inline constexpr int64_t kMlaWidth = kMlaLatent + kMlaRope;
// Cache rows that one block attends to. A constant, because a row's bits depend on where
// its context is cut: not on the batch, the heads of a rank or the longest row.
// docs/design/0010-hopper-kernels.md has its reasons.
inline constexpr int64_t kMlaSplitRows = 1024;

// 64 cache rows make a tile, 64 heads a block.
inline constexpr uint32_t kMlaTileRows = 64;
inline constexpr uint32_t kMlaTileHeads = 64;
inline constexpr uint32_t kMlaStages = 2;
// Two warpgroups. One warp more, to copy, would be a third on one of an SM's four parts,
// and leave each thread 168 registers; its sums are 128.
inline constexpr uint32_t kMlaThreads = 2 * 128;

// Bytes of shared memory: queries and stages in chunks of 64 values, then for each head
// what its sums shrink by (a stage each) and its total, then eight barriers.
inline constexpr uint32_t kMlaTileBytes =
    kMlaTileRows * static_cast<uint32_t>(kMlaWidth) * 2;
inline constexpr uint32_t kMlaSharedBytes =
    (1 + kMlaStages) * kMlaTileBytes + (kMlaStages + 1) * kMlaTileHeads * 4 + 8 * 8;

// Of packed rows, also where each row of a split lies.
inline constexpr uint32_t kMlaPackedSharedBytes =
    kMlaSharedBytes + static_cast<uint32_t>(kMlaSplitRows) * 4;

struct MlaDecodeShape {
  int64_t tokens = 0;
  int64_t heads = 0;
  int64_t latent = kMlaLatent;
  int64_t rope = kMlaRope;
  RowFormat rows = RowFormat::Plain(kMlaWidth);  // plain: BF16
  bool selects = false;                          // some of the rows that it sees
  int64_t block_size = 0;                        // cache rows of a page
  int64_t rows_max = 0;                          // that a query attends to at most
};

// Why the portable op must take a shape.
enum class MlaDecodeRefusal {
  kNone,
  kWidth,      // not 512 + 64 values
  kRows,       // neither BF16 nor the packed rows of V3.2
  kSelection,  // of BF16 rows, which come as many as lie together
  kHeads,      // none, or no multiple of 8: copies bring eight rows
  kBlockSize,  // none, or of BF16 rows no multiple of 8
  kGrid,       // more blocks than a launch can have
};
std::string_view MlaDecodeRefusalName(MlaDecodeRefusal refusal);
MlaDecodeRefusal CheckMlaDecode(const MlaDecodeShape& shape);

// Of packed rows: 512 e4m3 codes, a float32 scale for each 128, 64 BF16: 656 bytes.
inline constexpr RowFormat kMlaPackedRows = {.code = RowCode::kE4M3,
                                             .scale = RowScale::kF32,
                                             .width = kMlaWidth,
                                             .coded = kMlaLatent,
                                             .group = 128};

struct MlaDecodeConfig {
  uint32_t head_tiles = 1;  // of a token
  uint32_t splits = 1;      // blocks for the longest row
  // Rows that one copy brings: as many as lie together and fit a tile.
  uint32_t query_box_rows = 8;
  uint32_t cache_box_rows = 8;
  int64_t workspace_bytes = 0;  // of the partial results, 0 without any

  std::string ToString() const;
};

// Of a shape that CheckMlaDecode takes.
MlaDecodeConfig ChooseMlaDecode(const MlaDecodeShape& shape);

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_MLA_MLA_DECODE_CONFIG_H_
