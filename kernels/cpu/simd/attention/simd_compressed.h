// Attention over rows that are keys and values both, and the pooling that makes such
// rows, written once for all instruction sets. Included through simd_table.h only.
#ifndef TESSERA_KERNELS_CPU_SIMD_ATTENTION_SIMD_COMPRESSED_H_
#define TESSERA_KERNELS_CPU_SIMD_ATTENTION_SIMD_COMPRESSED_H_

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

// Rows between two loads and stores of the sums: 16 rows of 512 values are 32 KiB, which
// stay in L1 or L2 while all heads meet them.
constexpr int64_t kRowsPerBlock = 16;
// Vectors of columns in registers: with four heads 16 sums on AVX-512, like kXRows rows.
constexpr int kColumnVectors = kXRows;

// Asks for rows [begin, end) as far as there are any: they lie in pages of their own,
// which the processor does not follow from row to row.
void PrefetchRows(const SharedKvTask& task, int64_t begin, int64_t end) {
  constexpr int64_t kLine = 16;  // floats
  for (int64_t i = begin; i < Smaller(end, task.count); ++i) {
    for (int64_t c = 0; c < task.dim; c += kLine) {
      __builtin_prefetch(task.rows[i] + c, 0, 2);
    }
  }
}

// scores[head][i] of kX rows from `i` on, for all heads: a row is read once.
template <int kX>
void SharedKvScores(const SharedKvTask& task, const float* q, int64_t q_stride, int64_t i,
                    float* scores, int64_t score_stride) {
  for (int64_t head = 0; head < task.heads; head += kWRows) {
    const float* q_rows[kWRows];
    for (int64_t o = 0; o < kWRows; ++o) {
      q_rows[o] = q + (head + o) * q_stride;
    }
    float dots[kX][kWRows];
    DotBlock<kX>(q_rows, task.rows + i, task.dim, dots);
    for (int j = 0; j < kX; ++j) {
      for (int o = 0; o < kWRows; ++o) {
        scores[(head + o) * score_stride + i + j] = dots[j][o] * task.scale;
      }
    }
  }
}

struct RowRange {
  int64_t begin;
  int64_t end;
};

// Adds `rows`, weighted, to kC vectors of columns of four heads, which are zero before
// row 0.
template <int kC>
TESSERA_INLINE void SharedKvColumns(const SharedKvTask& task, const float* weights,
                                    int64_t weight_stride, RowRange rows, int64_t column,
                                    float* const* out) {
  const int64_t rest = task.dim - column;
  const bool whole = rest >= 16 * kC;
  V16 sums[kWRows][kC];
#pragma GCC unroll 4
  for (int o = 0; o < kWRows; ++o) {
#pragma GCC unroll 4
    for (int c = 0; c < kC; ++c) {
      const float* at = out[o] + column + 16 * c;
      sums[o][c] = rows.begin == 0 ? Zero() : whole ? Load(at) : LoadFirst(at, rest);
    }
  }
  for (int64_t i = rows.begin; i < rows.end; ++i) {
    const float* row = task.rows[i] + column;
    V16 values[kC];
#pragma GCC unroll 4
    for (int c = 0; c < kC; ++c) {
      values[c] = whole ? Load(row + 16 * c) : LoadFirst(row + 16 * c, rest);
    }
#pragma GCC unroll 4
    for (int o = 0; o < kWRows; ++o) {
      const V16 weight = Set(weights[o * weight_stride + i]);
#pragma GCC unroll 4
      for (int c = 0; c < kC; ++c) {
        sums[o][c] = Fma(weight, values[c], sums[o][c]);
      }
    }
  }
#pragma GCC unroll 4
  for (int o = 0; o < kWRows; ++o) {
#pragma GCC unroll 4
    for (int c = 0; c < kC; ++c) {
      StoreFirst(sums[o][c], out[o] + column + 16 * c, whole ? 16 : rest);
    }
  }
}

// out[head] = sum_i weights[head][i] row_i for all heads, i rising from zero.
void SharedKvSums(const SharedKvTask& task, const float* weights, int64_t weight_stride,
                  float* spare) {
  for (int64_t begin = 0; begin < task.count; begin += kRowsPerBlock) {
    const RowRange rows = {begin, Smaller(begin + kRowsPerBlock, task.count)};
    for (int64_t head = 0; head < task.heads; head += kWRows) {
      float* out[kWRows];
      for (int64_t o = 0; o < kWRows; ++o) {
        out[o] = head + o < task.heads ? task.out + (head + o) * task.out_stride : spare;
      }
      const float* of_heads = weights + head * weight_stride;
      int64_t column = 0;
      for (; column + 16 * kColumnVectors <= task.dim; column += 16 * kColumnVectors) {
        SharedKvColumns<kColumnVectors>(task, of_heads, weight_stride, rows, column, out);
      }
      for (; column < task.dim; column += 16) {
        SharedKvColumns<1>(task, of_heads, weight_stride, rows, column, out);
      }
    }
  }
}

void SharedKvAttention(const SharedKvTask& task) {
  const int64_t dim = RoundUp16(task.dim);
  const int64_t padded = RoundUp16(task.count);
  const int64_t heads = (task.heads + kWRows - 1) / kWRows * kWRows;
  float* q = task.scratch;
  float* scores = q + heads * dim;
  for (int64_t head = 0; head < heads;
       ++head) {  // the last one stands in for missing ones
    CopyPadded(task.q + Smaller(head, task.heads - 1) * task.q_stride, task.dim,
               q + head * dim);
  }
  int64_t i = 0;
  for (; i + kXRows <= task.count; i += kXRows) {
    PrefetchRows(task, i + kXRows, i + 2 * kXRows);
    SharedKvScores<kXRows>(task, q, dim, i, scores, padded);
  }
  for (; i < task.count; ++i) {
    SharedKvScores<1>(task, q, dim, i, scores, padded);
  }
  for (int64_t head = 0; head < task.heads; ++head) {
    float* row = scores + head * padded;
    for (i = task.count; i < padded; ++i) {
      row[i] = -__builtin_inff();
    }
    task.totals[head] = Exponentials(row, padded, &task.maxima[head]);
  }
  SharedKvSums(task, scores, padded, q);  // the queries are no longer needed
  for (int64_t head = 0; head < task.heads; ++head) {
    const V16 total = Set(task.totals[head]);
    float* out = task.out + head * task.out_stride;
    Map1(out, out, task.dim, [=](V16 sum) { return Div(sum, total); });
  }
}

// kC vectors of channels: the largest gate first, then both sums.
template <int kC>
TESSERA_INLINE void PoolChannels(const PoolTask& task, int64_t channel) {
  const int64_t rest = task.channels - channel;
  const bool whole = rest >= 16 * kC;
  V16 largest[kC];
  V16 totals[kC];
  V16 sums[kC];
#pragma GCC unroll 4
  for (int c = 0; c < kC; ++c) {
    largest[c] = Set(-__builtin_inff());
    totals[c] = Zero();
    sums[c] = Zero();
  }
  for (int64_t i = 0; i < task.count; ++i) {
    const float* gates = task.gates[i] + channel;
#pragma GCC unroll 4
    for (int c = 0; c < kC; ++c) {
      const V16 gate = whole ? Load(gates + 16 * c) : LoadFirst(gates + 16 * c, rest);
      largest[c] = Max(largest[c], gate);
    }
  }
  for (int64_t i = 0; i < task.count; ++i) {
    const float* gates = task.gates[i] + channel;
    const float* values = task.values[i] + channel;
#pragma GCC unroll 4
    for (int c = 0; c < kC; ++c) {
      const V16 gate = whole ? Load(gates + 16 * c) : LoadFirst(gates + 16 * c, rest);
      const V16 value = whole ? Load(values + 16 * c) : LoadFirst(values + 16 * c, rest);
      const V16 weight = Exp(Sub(gate, largest[c]));
      sums[c] = Fma(weight, value, sums[c]);
      totals[c] = Add(totals[c], weight);
    }
  }
#pragma GCC unroll 4
  for (int c = 0; c < kC; ++c) {
    StoreFirst(Div(sums[c], totals[c]), task.out + channel + 16 * c, whole ? 16 : rest);
  }
}

void Pool(const PoolTask& task) {
  int64_t channel = 0;
  for (; channel + 16 * kColumnVectors <= task.channels; channel += 16 * kColumnVectors) {
    PoolChannels<kColumnVectors>(task, channel);
  }
  for (; channel < task.channels; channel += 16) {
    PoolChannels<1>(task, channel);
  }
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_ATTENTION_SIMD_COMPRESSED_H_
