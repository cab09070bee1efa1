#include "kernels/cuda/mla/mla_decode_config.h"

#include <algorithm>
#include <numeric>

#include "fmt/format.h"

#include "common/check.h"
#include "kernels/cuda/primitives/device_types.h"

namespace tessera::kernels::cuda {
namespace {

// The pattern of a swizzled tile repeats every eight rows.
constexpr int64_t kGrain = 8;
constexpr int64_t kMaxGridX = 0x7fffffff;
constexpr int64_t kMaxGridY = 65535;
// A partial result: a sum for each value, the largest score and the total weight.
constexpr int64_t kPartialBytes = (kMlaLatent + 2) * int64_t{sizeof(float)};

static_assert(kMlaPackedSharedBytes <= kMaxSharedBytes);
static_assert(kMlaSplitRows % kMlaTileRows == 0);

bool IsMlaPacked(const RowFormat& rows) {
  return rows.code == kMlaPackedRows.code && rows.scale == kMlaPackedRows.scale &&
         rows.width == kMlaPackedRows.width && rows.coded == kMlaPackedRows.coded &&
         rows.group == kMlaPackedRows.group;
}

int64_t HeadTiles(const MlaDecodeShape& shape) {
  return (shape.heads + kMlaTileHeads - 1) / kMlaTileHeads;
}
int64_t Splits(const MlaDecodeShape& shape) {
  return std::max<int64_t>(1, (shape.rows_max + kMlaSplitRows - 1) / kMlaSplitRows);
}

}  // namespace

std::string_view MlaDecodeRefusalName(MlaDecodeRefusal refusal) {
  switch (refusal) {
    case MlaDecodeRefusal::kNone:
      return "none";
    case MlaDecodeRefusal::kWidth:
      return "width";
    case MlaDecodeRefusal::kRows:
      return "rows";
    case MlaDecodeRefusal::kSelection:
      return "selection";
    case MlaDecodeRefusal::kHeads:
      return "heads";
    case MlaDecodeRefusal::kBlockSize:
      return "block size";
    case MlaDecodeRefusal::kGrid:
      return "grid";
  }
  return "";
}

MlaDecodeRefusal CheckMlaDecode(const MlaDecodeShape& shape) {
  if (shape.latent != kMlaLatent || shape.rope != kMlaRope) {
    return MlaDecodeRefusal::kWidth;
  }
  if (shape.rows.is_packed() ? !IsMlaPacked(shape.rows) : shape.rows.width != kMlaWidth) {
    return MlaDecodeRefusal::kRows;
  }
  if (shape.selects && !shape.rows.is_packed()) {
    return MlaDecodeRefusal::kSelection;
  }
  if (shape.heads < 1 || shape.heads % kGrain != 0) {
    return MlaDecodeRefusal::kHeads;
  }
  if (shape.block_size < 1 ||
      (!shape.rows.is_packed() && shape.block_size % kGrain != 0)) {
    return MlaDecodeRefusal::kBlockSize;
  }
  if (shape.tokens > kMaxGridX / shape.heads || Splits(shape) > kMaxGridY) {
    return MlaDecodeRefusal::kGrid;
  }
  return MlaDecodeRefusal::kNone;
}

std::string MlaDecodeConfig::ToString() const {
  return fmt::format(
      "{} tiles of heads, {} splits, boxes of {} queries and {} rows, {} bytes",
      head_tiles, splits, query_box_rows, cache_box_rows, workspace_bytes);
}

MlaDecodeConfig ChooseMlaDecode(const MlaDecodeShape& shape) {
  TESSERA_CHECK(CheckMlaDecode(shape) == MlaDecodeRefusal::kNone);
  MlaDecodeConfig config;
  config.head_tiles = static_cast<uint32_t>(HeadTiles(shape));
  config.splits = static_cast<uint32_t>(Splits(shape));
  config.query_box_rows =
      static_cast<uint32_t>(std::gcd(shape.heads, int64_t{kMlaTileHeads}));
  config.cache_box_rows =
      static_cast<uint32_t>(std::gcd(shape.block_size, int64_t{kMlaTileRows}));
  config.workspace_bytes =
      config.splits > 1 ? shape.tokens * shape.heads * config.splits * kPartialBytes : 0;
  return config;
}

}  // namespace tessera::kernels::cuda
