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

#include "kernels/cpu/simd/attention/attention_tasks.h"
#include "kernels/cpu/simd/rounded/rounded_rows.h"

namespace tessera::kernels::cpu {

static constexpr int64_t Smaller(int64_t a, int64_t b) { return a < b ? a : b; }

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

constexpr int64_t kLinearScratchFloats = int64_t{1} << 16;

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
  float* scratch;         // kLinearScratchFloats
};

// Rows of activations as integers, for products with e2m1 weights: groups of
// kInt8GroupValues values with a scale each, in blocks of 16 groups. Lane l of a block is
// its group Int8GroupOfLane(l); byte i of lane l in run 2 j + h of a block's eight runs
// of 64 bytes is value 8 j + 2 i + h of that group: the places of four packed weight
// bytes, their low and their high nibbles. What lies beyond a row is zero.
constexpr int64_t kInt8GroupValues = 32;
constexpr int64_t kInt8BlockValues = 16 * kInt8GroupValues;
static constexpr int64_t Int8GroupOfLane(int64_t lane) { return lane % 4 * 4 + lane / 4; }
struct Int8Rows {
  int8_t* codes;     // [rows, blocks, 8, 16, 4]
  float* scales;     // [rows, blocks, 16], by lane: half of the value of a step, since
                     // integers stand for twice an e2m1 value
  int32_t* offsets;  // [rows, blocks, 16], by lane: -12 times the sum of the codes, in
                     // the form in which the table adds products up
  int64_t blocks;    // of a row
};
// Codes of a group as its words: byte i of word 2 j + h is value 8 j + 2 i + h. Of all
// words together, the sums of the first two bytes and of the last two.
struct GroupWords {
  uint32_t words[8];
  int32_t first;
  int32_t second;
};
// What a block takes, in units of a float.
constexpr int64_t kInt8BlockFloats = kInt8BlockValues / 4 + 16 + 16;

// out[t, o] = sum over groups g of (sum_i x[t, g, i] w[o, g, i]) (scale of x's group)
// (scale of w's), for weight rows [row_begin, row_end) in e2m1 with an e8m0 scale per
// group. The inner sums are integers and exact. Group g is added to lane
// Int8GroupOfLane(g mod 16) of 16 by a fused multiply-add, blocks rising; then the lanes.
struct Int8Task {
  WeightRows weights;
  int64_t row_begin;
  int64_t row_end;
  int64_t inputs;
  Int8Rows x;
  int64_t count;  // rows of x
  float* out;     // of weight row 0
  int64_t out_stride;
  float* scratch;  // kLinearScratchFloats
};

// 16 rows of weights.
struct RoundedTile {
  uint8_t* codes;  // [groups, kRoundedRuns, 16, 4]: byte i of row l in run r is the code
                   // of input 4 r + i, plus 128
  uint8_t* steps;  // [groups, 16]: a step is 2^(byte - 127); of damaged groups infinite
  float* scratch;  // one row
};

// out[t, o] = the tree over leaves of sum over groups g of (sum_i x[t, g, i] w[o, g, i])
// (scale of x's group * step of w's), by fused multiply-adds from zero, g rising. The
// inner sums are integers and exact.
struct RoundedTask {
  const uint8_t* codes;  // of tile 0; tiles follow each other
  const uint8_t* steps;
  LeafGroups leaves;
  int64_t row_begin;  // weight rows, from the first of tile 0 on
  int64_t row_end;
  RoundedRows x;
  int64_t x_row;  // the first one: a multiple of kRoundedBlockRows
  int64_t count;  // rows of x
  float* out;     // of weight row row_begin
  int64_t out_stride;
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
  // Rounds x [n], n a multiple of kInt8GroupValues, to row `row` of `out`: codes of at
  // most 127 = x / step, nearest, ties to even, where step = (largest magnitude of the
  // group) / 127. A group whose largest is below 2^-100 is zero; one that is not finite
  // has a scale that is not.
  void (*quantize_int8)(const float* x, int64_t n, const Int8Rows& out, int64_t row);
  void (*int8_linear)(const Int8Task& task);
  // Bytes that an input takes in RoundedRows: 1 or 2.
  int64_t rounded_value_bytes;
  // Rounds x to row `row` of `out`.
  void (*round_row)(const float* x, const LeafGroups& leaves, const RoundedRows& out,
                    int64_t row);
  // Rounds the `count` weight rows from `row` on, at most 16; more are zeros.
  void (*round_tile)(const WeightRows& w, int64_t row, int64_t count,
                     const LeafGroups& leaves, const RoundedTile& out);
  void (*rounded_linear)(const RoundedTask& task);
  void (*linear_transposed)(const TransposedTask& task);
  void (*index_scores)(const IndexScoreTask& task);
  void (*attention)(const AttentionTask& task);
  void (*round_cache_rows)(const RoundCacheTask& task);
  void (*round_queries)(const RoundQueriesTask& task);
  void (*rounded_attention)(const RoundedAttentionTask& task);
  // Merges the results of a block, its `out`, `maxima` and `totals`, into those of `all`.
  void (*merge_attention)(const AttentionTask& block, const AttentionTask& all);
  // out /= totals.
  void (*finish_attention)(const AttentionTask& all);
  void (*shared_kv_attention)(const SharedKvTask& task);
  void (*pool)(const PoolTask& task);
  void (*hyper_expand)(const HyperExpandTask& task);
  // x [n], n a power of two: butterflies of pairs 1, 2, 4, ... apart, then times
  // `factor`.
  void (*hadamard)(float* x, int64_t n, float factor);

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
  // j) * stride. A negative rows[j] adds nothing.
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
namespace avx512vnni {
extern const SimdOps kOps;
}

}  // namespace tessera::kernels::cpu

#endif  // TESSERA_KERNELS_CPU_SIMD_SIMD_OPS_H_
