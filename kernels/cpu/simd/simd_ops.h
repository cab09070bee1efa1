// SimdOps: the inner loops of the cpu backend, as a table of function pointers with one
// table per instruction set. A call crosses the table once per block of rows, never per
// element. Everything here is plain data: the files behind the tables share no inline
// function or template with the rest of the program, because the linker would keep one
// copy of it, perhaps the AVX-512 one.
//
// All tables give the same bits: 16 lanes, fused multiply-add where it is written, one
// reduction.
#ifndef TESSERA_KERNELS_CPU_SIMD_SIMD_OPS_H_
#define TESSERA_KERNELS_CPU_SIMD_SIMD_OPS_H_

#include <cstdint>

namespace tessera::kernels::cpu {

enum class WeightFormat : int32_t { kF32, kBf16, kF8E4M3, kFp4 };
enum class ScaleFormat : int32_t { kNone, kF32, kE8M0, kE4M3 };  // kE4M3: cache rows

// WeightView without its methods.
struct WeightRows {
  const uint8_t* data;
  int64_t row_bytes;
  WeightFormat format;
  ScaleFormat scale_format;
  const uint8_t* scales;
  int64_t scale_stride;
  int64_t block_rows;
  int64_t block_cols;
  int64_t row_offset;
  int64_t col_offset;
};

constexpr int32_t kMaxLeaves = 8;

// out[t, o] = sum over leaves of x[t] . w[o], for weight rows [row_begin, row_end).
struct LinearTask {
  WeightRows weights;
  int64_t row_begin;
  int64_t row_end;
  int32_t num_leaves;                  // 1 for a contraction that is not cut
  int64_t leaf_begin[kMaxLeaves + 1];  // columns of x
  const float* x;
  int64_t x_stride;
  const int32_t* x_rows;  // row of x for each t; null: row t
  int64_t count;          // rows of x
  float* out;             // of weight row 0
  int64_t out_stride;     // between rows of x
  float* scratch;
  int64_t scratch_floats;  // holds at least one padded weight row
};

// out[t, c] = sum_i x[t, i] w[row_begin + i, c] for columns [col_begin, col_end), i
// rising.
struct TransposedTask {
  WeightRows weights;
  int64_t row_begin;
  int64_t rows;
  int64_t col_begin;
  int64_t col_end;
  const float* x;
  int64_t x_stride;
  int64_t count;
  float* out;  // of column 0
  int64_t out_stride;
  float* scratch;
  int64_t scratch_floats;  // holds `rows` x 16 at least
};

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

// Attention of `heads` heads of one query over `count` cached rows.
struct AttentionTask {
  const float* q_latent;  // [heads, latent_dim]
  int64_t q_latent_stride;
  const float* q_rope;  // [heads, rope_dim]
  int64_t q_rope_stride;
  int64_t heads;
  int64_t latent_dim;
  int64_t rope_dim;
  const float* rows;       // [.., latent_dim + rope_dim]
  const int64_t* offsets;  // of each visible row, in floats
  int64_t count;
  float scale;
  float* out;  // [heads, latent_dim]
  int64_t out_stride;
  float* scratch;  // 4 x (latent_dim + rope_dim + count), each padded to 16
  // Of each head: the largest score and the sum of exponentials of scores minus it, from
  // which runs over parts of the rows can be merged. Null: not wanted.
  float* maxima;
  float* totals;
};

// As AttentionTask, over `count` rows of `dim` values that are keys and values both.
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

// out[c] = sum_i e^(gates[i][c] - m) values[i][c] / sum_i e^(gates[i][c] - m), where m is
// the largest gate of the channel; i rising.
struct PoolTask {
  const float* const* values;
  const float* const* gates;
  int64_t count;
  int64_t channels;
  float* out;
};

// streams[k] = post[k] y + sum_j mix[j, k] streams[j], in place; at most kMaxStreams of
// them.
constexpr int64_t kMaxStreams = 8;
struct HyperExpandTask {
  const float* y;
  const float* post;
  const float* mix;
  int64_t mix_stride;
  int64_t num_streams;
  float* streams;
  int64_t stream_stride;
  int64_t dim;
};

struct SimdOps {
  // Values [begin, begin + count) of a weight row, times their scales. Writes exactly
  // `count`.
  void (*decode_row)(const WeightRows& w, int64_t row, int64_t begin, int64_t count,
                     float* out);
  void (*linear)(const LinearTask& task);
  void (*linear_transposed)(const TransposedTask& task);
  void (*index_scores)(const IndexScoreTask& task);
  void (*attention)(const AttentionTask& task);
  void (*shared_kv_attention)(const SharedKvTask& task);
  void (*pool)(const PoolTask& task);
  void (*hyper_expand)(const HyperExpandTask& task);

  float (*dot)(const float* a, const float* b, int64_t n);
  // sum_i (a[i] * b[i]) * c[i], the first product rounded.
  float (*dot3)(const float* a, const float* b, const float* c, int64_t n);
  // x * (1 / sqrt(mean(x^2) + eps)) * weight.
  void (*rms_norm)(const float* x, const float* weight, float eps, float* out, int64_t n);
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps,
                     float* out, int64_t n);
  void (*exp)(const float* x, float* out, int64_t n);
  void (*sigmoid)(const float* x, float* out, int64_t n);
  void (*silu)(const float* x, float* out, int64_t n);
  // silu(min(gate, limit)) * clamp(up, -limit, limit); limit may be infinite.
  void (*silu_mul)(const float* gate, const float* up, float limit, float* out,
                   int64_t n);
  // max |x|; NaN if a value is not finite.
  float (*largest_magnitude)(const float* x, int64_t n);
  // x = round(x / scale) * scale on the grid of e4m3 (up to 448) or e2m1 (up to 6), the
  // nearest, ties to even, beyond the end the end; the sign stays, of zero too.
  void (*round_e4m3)(float* x, float scale, int64_t n);
  void (*round_fp4)(float* x, float scale, int64_t n);
  // out += a * x, and out += a[i] * x[i], fused.
  void (*add_scaled)(float a, const float* x, float* out, int64_t n);
  void (*add_product)(const float* a, const float* x, float* out, int64_t n);
  // out = sum_j weights[j] * row j, j rising from zero; row j = base + (rows ? rows[j] :
  // j) * stride.
  void (*weighted_sum)(const float* base, int64_t stride, const int32_t* rows,
                       const float* weights, int64_t count, float* out, int64_t n);
};

namespace scalar {
extern const SimdOps kOps;
}
namespace avx2 {
extern const SimdOps kOps;
}
namespace avx512 {
extern const SimdOps kOps;
}

}  // namespace tessera::kernels::cpu

#endif  // TESSERA_KERNELS_CPU_SIMD_SIMD_OPS_H_
