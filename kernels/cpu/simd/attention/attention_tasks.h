// What the loops over cached rows behind a SimdOps table are asked for: the lightning
// indexer, absorbed MLA, and attention over rows that are keys and values both. Plain
// data, as in simd_ops.h.
#ifndef TESSERA_KERNELS_CPU_SIMD_ATTENTION_ATTENTION_TASKS_H_
#define TESSERA_KERNELS_CPU_SIMD_ATTENTION_ATTENTION_TASKS_H_

#include <cstdint>

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
