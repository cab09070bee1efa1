// Queries and cached rows of absorbed MLA to 8 bits, written once for all instruction
// sets: RoundCacheTask and RoundQueriesTask of attention_tasks.h. Included through
// simd_table.h only.
#ifndef TESSERA_KERNELS_CPU_SIMD_ATTENTION_SIMD_ATTENTION_ROUNDING_H_
#define TESSERA_KERNELS_CPU_SIMD_ATTENTION_SIMD_ATTENTION_ROUNDING_H_

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

// Below this the largest of a group counts as zero.
constexpr float kSmallestLargest = 0x1p-100F;

// Where group 0 of row `row` is among the scales of RoundedRows; other groups follow
// kRoundedBlockRows apart.
TESSERA_INLINE int64_t FirstGroupOf(const LeafGroups& leaves, int64_t row) {
  return row / kRoundedBlockRows * leaves.begin[leaves.count] * kRoundedBlockRows +
         row % kRoundedBlockRows;
}

// Of the columns of the tile-th tile.
float StepOfRow(const RoundCacheTask& task, int64_t row, int64_t tile) {
  const float* scales = task.out.keys.scales + FirstGroupOf(task.leaves, row);
  const int64_t end = Smaller((tile + 1) * kValueGroups, task.leaves.begin[1]);
  float step = 0.0F;
  for (int64_t g = tile * kValueGroups; g < end; ++g) {
    const float scale = scales[g * kRoundedBlockRows];
    step = step < scale ? scale : step;
  }
  return step;
}

// The latents of rows [4 quad, 4 quad + 4) in the columns of a tile.
void RoundQuad(const RoundCacheTask& task, int64_t quad, int64_t tile) {
  const int64_t latent_dim = task.leaves.input[1];
  const float* rows[4];
  V16 factors[4];
  for (int64_t i = 0; i < 4; ++i) {
    // The last row stands in for missing ones, whose probability is zero.
    const int64_t row = Smaller(4 * quad + i, task.end - 1);
    const float step = StepOfRow(task, row, tile);
    task.out.steps[tile * kAttentionRows + 4 * quad + i] = step;
    factors[i] = Set(step > 0.0F ? 1.0F / step : 0.0F);
    rows[i] = task.rows + task.offsets[row];
  }
  const int64_t end = Smaller((tile + 1) * kValueColumns, latent_dim);
  for (int64_t column = tile * kValueColumns; column < end; column += 16) {
    const int64_t rest = latent_dim - column;
    V16 values[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const V16 row =
          rest >= 16 ? Load(rows[i] + column) : LoadFirst(rows[i] + column, rest);
      values[i] = Anchored(row, factors[i]);
    }
    StoreBytes(PackLowBytes(values),
               task.out.values + (column / 16 * kAttentionQuads + quad) * 64);
  }
}

void RoundCacheRows(const RoundCacheTask& task) {
  for (int64_t row = task.begin; row < task.end; ++row) {
    RoundRow(task.rows + task.offsets[row], task.leaves, task.out.keys, row);
  }
  const int64_t tiles = (task.leaves.input[1] + kValueColumns - 1) / kValueColumns;
  for (int64_t quad = task.begin / 4; 4 * quad < task.end; ++quad) {
    for (int64_t tile = 0; tile < tiles; ++tile) {
      RoundQuad(task, quad, tile);
    }
  }
}

// x [heads, n] with heads in lanes: to [n rounded up to 16, 16]; what lacks is zero.
void HeadsToLanes(const float* x, int64_t stride, int64_t heads, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += 16) {
    const int64_t count = Smaller(n - i, 16);
    I16 pieces[4][4];  // [p][k]: values 4 p..4 p + 3 of heads k, k + 4, k + 8, k + 12
    for (int64_t k = 0; k < 4; ++k) {
      I16 rows[4];
      for (int64_t q = 0; q < 4; ++q) {
        const int64_t head = 4 * q + k;
        if (head >= heads) {
          rows[q] = ZeroInts();
          continue;
        }
        const auto* at = reinterpret_cast<const uint8_t*>(x + head * stride + i);
        rows[q] = count == 16 ? LoadBytes(at) : LoadFirstBytes(at, 4 * count);
      }
      TransposePieces(rows);
      for (int64_t p = 0; p < 4; ++p) {
        pieces[p][k] = rows[p];
      }
    }
    for (int64_t p = 0; p < 4; ++p) {
      TransposeWords(pieces[p]);
      for (int64_t j = 0; j < 4; ++j) {
        StoreBytes(pieces[p][j], reinterpret_cast<uint8_t*>(out + (i + 4 * p + j) * 16));
      }
    }
  }
}

// A group of n values [n, 16] of all heads.
void RoundQueryGroup(const float* q, int64_t n, uint8_t* codes, float* scales) {
  V16 largest = Zero();
  V16 damage = Zero();  // NaN where a value is not finite
  for (int64_t i = 0; i < n; ++i) {
    const V16 value = Load(q + i * 16);
    largest = Max(largest, Abs(value));
    damage = Fma(value, Zero(), damage);
  }
  const V16 most = Set(127.0F);
  const V16 smallest = Set(kSmallestLargest);
  const V16 factor = SelectLess(largest, smallest, Zero(), Div(most, largest));
  Store(Add(SelectLess(largest, smallest, Zero(), Div(largest, most)), damage), scales);
  const V16 anchor = Set(kRoundingAnchor + 128.0F);
  for (int64_t run = 0; run < kRoundedRuns; ++run) {
    V16 values[4];
    for (int64_t i = 0; i < 4; ++i) {
      const int64_t at = 4 * run + i;
      values[i] = Add(at < n ? Mul(Load(q + at * 16), factor) : Zero(), anchor);
    }
    StoreBytes(PackLowBytes(values), codes + run * 64);
  }
}

void RoundQueries(const RoundQueriesTask& task) {
  const LeafGroups& leaves = task.leaves;
  const int64_t latent_dim = leaves.input[1];
  const int64_t rope_dim = leaves.input[2] - latent_dim;
  float* const rope = task.scratch + RoundUp16(latent_dim) * 16;
  HeadsToLanes(task.latent, task.latent_stride, task.heads, latent_dim, task.scratch);
  HeadsToLanes(task.rope, task.rope_stride, task.heads, rope_dim, rope);
  for (int32_t leaf = 0; leaf < leaves.count; ++leaf) {
    const float* values = leaf == 0 ? task.scratch : rope;
    int64_t left = leaves.input[leaf + 1] - leaves.input[leaf];
    for (int64_t g = leaves.begin[leaf]; g < leaves.begin[leaf + 1]; ++g) {
      RoundQueryGroup(values, Smaller(left, kRoundedGroup),
                      task.out.codes + g * kRoundedGroupBytes, task.out.scales + g * 16);
      values += kRoundedGroup * 16;
      left -= kRoundedGroup;
    }
  }
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_ATTENTION_SIMD_ATTENTION_ROUNDING_H_
