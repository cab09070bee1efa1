// Scores and sums over cached rows, written once for all instruction sets: the lightning
// indexer and absorbed MLA. Four queries (heads) meet each cached row while it is in
// registers. Included through simd_table.h only.
#ifndef TESSERA_KERNELS_CPU_SIMD_SIMD_ATTENTION_H_
#define TESSERA_KERNELS_CPU_SIMD_SIMD_ATTENTION_H_

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

void CopyPadded(const float* from, int64_t n, float* to) {
  for (int64_t i = 0; i < n; i += 16) {
    Store(LoadFirst(from + i, Smaller(n - i, 16)), to + i);
  }
}

// Scores of kX keys from `i` on, so that each query meets them while it is in registers.
// `q` is padded; `dots` holds kX rows of the heads, rounded up to kWRows.
template <int kX>
void IndexScoresOf(const IndexScoreTask& task, const float* q, int64_t i, float* dots) {
  const int64_t dim = RoundUp16(task.dim);
  const int64_t groups = (task.heads + kWRows - 1) / kWRows;
  const float* keys[kX];
  for (int j = 0; j < kX; ++j) {
    // 32 bits divide faster, and positions have no more.
    const auto s = static_cast<uint32_t>(
        task.entries == nullptr ? i + j : task.entries[i + j - task.begin]);
    const auto block_size = static_cast<uint32_t>(task.block_size);
    keys[j] = task.keys + task.blocks[s / block_size] * task.block_stride +
              s % block_size * task.row_stride;
  }
  for (int64_t g = 0; g < groups; ++g) {
    const float* queries[kWRows];
    for (int64_t o = 0; o < kWRows; ++o) {
      queries[o] = q + Smaller(g * kWRows + o, task.heads - 1) * dim;
    }
    float sums[kX][kWRows];
    DotBlock<kX>(queries, keys, task.dim, sums);
    for (int j = 0; j < kX; ++j) {
      float* of_key = dots + (j * groups + g) * kWRows;
      for (int o = 0; o < kWRows; ++o) {
        of_key[o] = sums[j][o] < 0.0F ? 0.0F : sums[j][o];
      }
    }
  }
  for (int j = 0; j < kX; ++j) {
    task.scores[i + j - task.begin] =
        Dot(dots + j * groups * kWRows, task.weights, task.heads);
  }
}

void IndexScores(const IndexScoreTask& task) {
  const int64_t dim = RoundUp16(task.dim);
  for (int64_t h = 0; h < task.heads; ++h) {
    CopyPadded(task.q + h * task.q_stride, task.dim, task.scratch + h * dim);
  }
  float* dots = task.scratch + task.heads * dim;
  int64_t i = task.begin;
  for (; i + kXRows <= task.end; i += kXRows) {
    IndexScoresOf<kXRows>(task, task.scratch, i, dots);
  }
  for (; i < task.end; ++i) {
    IndexScoresOf<1>(task, task.scratch, i, dots);
  }
}

// scores[h][i] of kX cached rows, from `i` on.
template <int kX>
void AttentionScores(const AttentionTask& task, const float* const* q_latent,
                     const float* const* q_rope, int64_t i, float* scores,
                     int64_t score_stride) {
  const float* latent[kX];
  const float* rope[kX];
  for (int j = 0; j < kX; ++j) {
    latent[j] = task.rows + task.offsets[i + j];
    rope[j] = latent[j] + task.latent_dim;
  }
  float of_latent[kX][kWRows];
  float of_rope[kX][kWRows];
  DotBlock<kX>(q_latent, latent, task.latent_dim, of_latent);
  DotBlock<kX>(q_rope, rope, task.rope_dim, of_rope);
  for (int j = 0; j < kX; ++j) {
    for (int o = 0; o < kWRows; ++o) {
      scores[o * score_stride + i + j] = (of_latent[j][o] + of_rope[j][o]) * task.scale;
    }
  }
}

// Exponentials of scores minus their maximum, in place; returns their sum and the
// maximum. The row is padded to 16 with minus infinity, whose exponential adds zero.
float Exponentials(float* scores, int64_t padded, float* largest) {
  V16 maxima = Load(scores);
  for (int64_t i = 16; i < padded; i += 16) {
    maxima = Max(maxima, Load(scores + i));
  }
  float lanes[16];
  Store(maxima, lanes);
  float maximum = lanes[0];
  for (int lane = 1; lane < 16; ++lane) {
    maximum = lanes[lane] > maximum ? lanes[lane] : maximum;
  }
  *largest = maximum;
  const V16 shift = Set(maximum);
  V16 sum = Zero();
  for (int64_t i = 0; i < padded; i += 16) {
    const V16 value = Exp(Sub(Load(scores + i), shift));
    Store(value, scores + i);
    sum = Add(sum, value);
  }
  return Reduce(sum);
}

// out[h] of kC vectors of columns: weights[h] . latent rows, divided by totals[h].
template <int kC>
TESSERA_INLINE void AttentionColumns(const AttentionTask& task, const float* weights,
                                     int64_t weight_stride, const float* totals,
                                     int64_t column, int64_t head, int64_t heads) {
  V16 sums[kWRows][kC];
#pragma GCC unroll 4
  for (int o = 0; o < kWRows; ++o) {
#pragma GCC unroll 4
    for (int c = 0; c < kC; ++c) {
      sums[o][c] = Zero();
    }
  }
  const int64_t rest = task.latent_dim - column;
  const bool whole = rest >= 16 * kC;
  for (int64_t i = 0; i < task.count; ++i) {
    const float* latent = task.rows + task.offsets[i] + column;
    V16 values[kC];
#pragma GCC unroll 4
    for (int c = 0; c < kC; ++c) {
      values[c] = whole ? Load(latent + 16 * c) : LoadFirst(latent + 16 * c, rest);
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
    if (o < heads) {
      float* out = task.out + (head + o) * task.out_stride + column;
#pragma GCC unroll 4
      for (int c = 0; c < kC; ++c) {
        const V16 value = Div(sums[o][c], Set(totals[o]));
        StoreFirst(value, out + 16 * c, whole ? 16 : rest);
      }
    }
  }
}

void AttentionOfHeads(const AttentionTask& task, int64_t head, int64_t heads) {
  const int64_t latent_dim = RoundUp16(task.latent_dim);
  const int64_t rope_dim = RoundUp16(task.rope_dim);
  const int64_t padded = RoundUp16(task.count);
  float* q = task.scratch;
  float* scores = q + kWRows * (latent_dim + rope_dim);
  const float* q_latent[kWRows];
  const float* q_rope[kWRows];
  for (int64_t o = 0; o < kWRows; ++o) {
    const int64_t from = head + Smaller(o, heads - 1);
    float* to = q + o * (latent_dim + rope_dim);
    CopyPadded(task.q_latent + from * task.q_latent_stride, task.latent_dim, to);
    CopyPadded(task.q_rope + from * task.q_rope_stride, task.rope_dim, to + latent_dim);
    q_latent[o] = to;
    q_rope[o] = to + latent_dim;
  }
  int64_t i = 0;
  for (; i + kXRows <= task.count; i += kXRows) {
    AttentionScores<kXRows>(task, q_latent, q_rope, i, scores, padded);
  }
  for (; i < task.count; ++i) {
    AttentionScores<1>(task, q_latent, q_rope, i, scores, padded);
  }
  float totals[kWRows];
  for (int64_t o = 0; o < kWRows; ++o) {
    float* row = scores + o * padded;
    for (i = task.count; i < padded; ++i) {
      row[i] = -__builtin_inff();
    }
    float maximum;
    totals[o] = Exponentials(row, padded, &maximum);
    if (task.totals != nullptr && o < heads) {
      task.maxima[head + o] = maximum;
      task.totals[head + o] = totals[o];
    }
  }
  int64_t column = 0;
  for (; column + 32 <= task.latent_dim; column += 32) {
    AttentionColumns<2>(task, scores, padded, totals, column, head, heads);
  }
  for (; column < task.latent_dim; column += 16) {
    AttentionColumns<1>(task, scores, padded, totals, column, head, heads);
  }
}

void Attention(const AttentionTask& task) {
  for (int64_t head = 0; head < task.heads; head += kWRows) {
    AttentionOfHeads(task, head, Smaller(kWRows, task.heads - head));
  }
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_SIMD_ATTENTION_H_
