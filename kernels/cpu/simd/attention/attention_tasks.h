// What the loops over cached rows behind a SimdOps table are asked for: the lightning
// indexer, absorbed MLA, and attention over rows that are keys and values both. Plain
// data, as in simd_ops.h.
#ifndef TESSERA_KERNELS_CPU_SIMD_ATTENTION_ATTENTION_TASKS_H_
#define TESSERA_KERNELS_CPU_SIMD_ATTENTION_ATTENTION_TASKS_H_

#include <cstdint>

#include "kernels/cpu/simd/rounded/rounded_rows.h"

namespace tessera::kernels::cpu {

// scores[i - begin] of cached keys entries[i - begin] (null: i), i in [begin, end), for
// one query.
struct IndexScoreTask {
  const float* q;  // [heads, dim], q_stride apart
  int64_t q_stride;
  const float* weights;  // [heads]
  int64_t heads;
  int64_t dim;
  const float* keys;
  int64_t block_stride;
  int64_t row_stride;
  const int32_t* blocks;
  int64_t block_size;
  const int32_t* entries;
  int64_t begin;
  int64_t end;
  float* scores;
  float* scratch;  // the queries, padded to 16, and the dots of four keys
};

// Attention of up to 16 heads of one query over a block of at most kAttentionRows cached
// rows:
//   s_i = (q . row i) * scale, a chain of fused multiply-adds over latent, then rope
//   out = sum_i e^(s_i - m) latent_i, totals = sum_i e^(s_i - m), maxima = m = max_i s_i
// for i rising. Blocks of a query begin at multiples of kAttentionRows of its rows and
// are merged in that order, so that bits depend on nothing but the query's rows.
constexpr int64_t kAttentionHeads = 16;
constexpr int64_t kAttentionRows = 96;
struct AttentionTask {
  const float* q;  // [latent_dim + rope_dim, kAttentionHeads]; zeros beyond the heads
  int64_t heads;
  int64_t latent_dim;
  int64_t rope_dim;
  const float* rows;       // [.., latent_dim + rope_dim]
  const int64_t* offsets;  // of each visible row, in floats
  int64_t count;
  float scale;
  float* out;  // [heads, latent_dim]
  int64_t out_stride;
  float* maxima;   // [kAttentionHeads]
  float* totals;   // [kAttentionHeads]
  float* scratch;  // kAttentionRows x kAttentionHeads
};

// The same with both sides of both products in 8 bits. Codes are nearest, ties to even;
// sums of their products are exact.
//   s_i = scale sum_g (q_g . k_ig) (scale of q_g * scale of k_ig)
// by fused multiply-adds from zero, over the groups of 32 of the latent, then of the rope
// key: q_g and k_ig are a group over (its largest magnitude / 127), as in RoundedRows.
//   out_c = sum_r (sum_i p_ri v_ic) (scale of p_r)
// likewise, over the runs r of 32 rows of a block. v_ic is a value of row i over the
// row's step for the tile of 128 columns that c is in: the largest scale among the tile's
// groups. Steps leave the sum over rows as shares of the largest step of a run: p_ri is
// (e^(s_i - m) over (its largest in the run / 255)) times the row's share, and the scale
// that of both largest.
constexpr int64_t kValueColumns = 128;
constexpr int64_t kValueGroups = kValueColumns / kRoundedGroup;
constexpr int64_t kAttentionQuads = kAttentionRows / 4;
constexpr int64_t kAttentionRuns = kAttentionRows / kRoundedGroup;
static_assert(kAttentionRows % kRoundedGroup == 0);

// Up to kAttentionRows cached rows.
struct RoundedCacheRows {
  RoundedRows keys;  // latent and rope key, as two leaves
  uint8_t* values;   // [latent_dim / 16, kAttentionQuads, 16, 4]: byte i of column l in
                     // quad r is of row 4 r + i
  float* steps;      // [latent_dim / kValueColumns, kAttentionRows]
};
// The queries of 16 heads: as RoundedTile, but for the scales.
struct RoundedQueries {
  uint8_t* codes;  // [groups, kRoundedRuns, 16, 4], plus 128
  float* scales;   // [groups, 16]
};
// Rounds the rows [begin, end) of a block. `begin` is a multiple of four.
struct RoundCacheTask {
  const float* rows;
  const int64_t* offsets;  // of each row of the block, in floats
  int64_t begin;
  int64_t end;
  LeafGroups leaves;
  RoundedCacheRows out;
};
// Rounds the queries of up to 16 heads; those beyond are zeros.
struct RoundQueriesTask {
  const float* latent;  // [heads, latent_dim]
  int64_t latent_stride;
  const float* rope;  // [heads, rope_dim]
  int64_t rope_stride;
  int64_t heads;
  LeafGroups leaves;
  float* scratch;  // 16 x the values of a row, each part rounded up to 16
  RoundedQueries out;
};
struct RoundedAttentionTask {
  AttentionTask task;  // without q, rows and offsets
  // Null: results go to `task`. Else they are merged into these, as merge_attention
  // would, and `out` of the task is theirs.
  const AttentionTask* all;
  LeafGroups leaves;
  RoundedQueries q;
  RoundedCacheRows rows;
};
// Floats of the scratch of a RoundedAttentionTask: scores; of a tile probabilities of up
// to two bytes each, and their scales.
constexpr int64_t kRoundedAttentionScratch =
    kAttentionHeads * (kAttentionRows + kAttentionRows / 2 + kAttentionRuns);

// Attention of `heads` heads of one query over `count` rows of `dim` values that are keys
// and values both.
struct SharedKvTask {
  const float* q;  // [heads, dim]
  int64_t q_stride;
  int64_t heads;
  int64_t dim;
  const float* const* rows;
  int64_t count;
  float scale;
  float* out;  // [heads, dim]
  int64_t out_stride;
  float* scratch;  // heads, rounded up to 4, x (dim + count), each padded to 16
  float* maxima;   // [heads]: the largest score
  float* totals;   // [heads]: the sum of exponentials of scores minus it
};

}  // namespace tessera::kernels::cpu

#endif  // TESSERA_KERNELS_CPU_SIMD_ATTENTION_ATTENTION_TASKS_H_
