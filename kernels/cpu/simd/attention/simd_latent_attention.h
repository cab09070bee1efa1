// Absorbed MLA over cached rows, written once for all instruction sets: AttentionTask of
// simd_ops.h. Included through simd_table.h only.
//
// Lanes are heads, so that a row of the cache is read as it lies, the softmax runs down
// the lanes, and nothing is added across them. Each score and each output is one chain of
// fused multiply-adds, over the values of a row and over the rows of a block.
//
// AVX2, per value of six rows: 2 loads of the queries, 6 broadcasts from the rows, 12
// multiply-adds (two a cycle): 6 cycles for 96 products, 8 of the 12 loads that these
// allow. The sums over values are alike, six heads to a row. A block of 96 rows of 576
// floats, 216 KiB, is read from L2 the second time; the queries, 36 KiB for 16 heads,
// meet it in parts that stay in L1.
#ifndef TESSERA_KERNELS_CPU_SIMD_ATTENTION_SIMD_LATENT_ATTENTION_H_
#define TESSERA_KERNELS_CPU_SIMD_ATTENTION_SIMD_LATENT_ATTENTION_H_

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

static_assert(kAttentionRows % kLatentKeys == 0);

// Values of the queries that stay in L1 while the rows of a block pass: 12 KiB.
constexpr int64_t kLatentValues = 192;

// scores[i][head] of kLatentKeys rows from `row` on, the part of the values [begin, end);
// the last row stands in for missing ones.
TESSERA_APART void LatentScores(const AttentionTask& task, int64_t row, int64_t begin,
                                int64_t end, float* scores) {
  const float* keys[kLatentKeys];
  const float* next[kLatentKeys];
  V16 sums[kLatentKeys];
#pragma GCC unroll 16
  for (int j = 0; j < kLatentKeys; ++j) {
    const int64_t last = task.count - 1;
    keys[j] = task.rows + task.offsets[Smaller(row + j, last)];
    next[j] = task.rows + task.offsets[Smaller(row + j + kLatentKeys, last)];
    sums[j] = begin == 0 ? Zero() : Load(scores + (row + j) * 16);
  }
  for (int64_t line = begin; line < end; line += 16) {
    // Rows lie apart, which the processor does not follow: the same of the next ones.
#pragma GCC unroll 16
    for (int j = 0; j < kLatentKeys; ++j) {
      __builtin_prefetch(next[j] + line);
    }
    const int64_t line_end = Smaller(line + 16, end);
    for (int64_t i = line; i < line_end; ++i) {
      const V16 q = Load(task.q + i * 16);
#pragma GCC unroll 16
      for (int j = 0; j < kLatentKeys; ++j) {
        sums[j] = Fma(q, Set(keys[j][i]), sums[j]);
      }
    }
  }
#pragma GCC unroll 16
  for (int j = 0; j < kLatentKeys; ++j) {
    Store(sums[j], scores + (row + j) * 16);
  }
}

// Scores become exponentials of scores, scaled, minus their maximum.
void LatentExponentials(const AttentionTask& task, float* scores) {
  const V16 scale = Set(task.scale);
  V16 largest = Set(-__builtin_inff());
  for (int64_t i = 0; i < task.count; ++i) {
    const V16 score = Mul(Load(scores + i * 16), scale);
    Store(score, scores + i * 16);
    largest = Max(largest, score);
  }
  V16 total = Zero();
  for (int64_t i = 0; i < task.count; ++i) {
    const V16 weight = Exp(Sub(Load(scores + i * 16), largest));
    Store(weight, scores + i * 16);
    total = Add(total, weight);
  }
  Store(largest, task.maxima);
  Store(total, task.totals);
}

// kC vectors of columns of kHeads heads: the weighted sum of the rows.
template <int kHeads, int kC>
TESSERA_APART void LatentSums(const AttentionTask& task, const float* weights,
                              int64_t head, int64_t column) {
  const int64_t rest = task.latent_dim - column;
  const bool whole = rest >= 16 * kC;
  V16 sums[kHeads][kC];
#pragma GCC unroll 8
  for (int h = 0; h < kHeads; ++h) {
#pragma GCC unroll 4
    for (int c = 0; c < kC; ++c) {
      sums[h][c] = Zero();
    }
  }
  for (int64_t i = 0; i < task.count; ++i) {
    const float* row = task.rows + task.offsets[i] + column;
    V16 values[kC];
#pragma GCC unroll 4
    for (int c = 0; c < kC; ++c) {
      values[c] = whole ? Load(row + 16 * c) : LoadFirst(row + 16 * c, rest);
    }
#pragma GCC unroll 8
    for (int h = 0; h < kHeads; ++h) {
      const V16 weight = Set(weights[i * 16 + head + h]);
#pragma GCC unroll 4
      for (int c = 0; c < kC; ++c) {
        sums[h][c] = Fma(weight, values[c], sums[h][c]);
      }
    }
  }
#pragma GCC unroll 8
  for (int h = 0; h < kHeads; ++h) {
    float* out = task.out + (head + h) * task.out_stride + column;
#pragma GCC unroll 4
    for (int c = 0; c < kC; ++c) {
      if (whole) {  // a masked store takes many times as long
        Store(sums[h][c], out + 16 * c);
      } else {
        StoreFirst(sums[h][c], out + 16 * c, rest);
      }
    }
  }
}

template <int kC>
void LatentColumns(const AttentionTask& task, const float* weights, int64_t column) {
  int64_t head = 0;
  for (; head + kLatentHeads <= task.heads; head += kLatentHeads) {
    LatentSums<kLatentHeads, kC>(task, weights, head, column);
  }
  if (head + 4 <= task.heads) {
    LatentSums<4, kC>(task, weights, head, column);
    head += 4;
  }
  for (; head < task.heads; ++head) {
    LatentSums<1, kC>(task, weights, head, column);
  }
}

void Attention(const AttentionTask& task) {
  const int64_t dim = task.latent_dim + task.rope_dim;
  float* scores = task.scratch;
  for (int64_t begin = 0; begin < dim; begin += kLatentValues) {
    const int64_t end = Smaller(begin + kLatentValues, dim);
    for (int64_t row = 0; row < task.count; row += kLatentKeys) {
      LatentScores(task, row, begin, end, scores);
    }
  }
  LatentExponentials(task, scores);
  int64_t column = 0;
  for (; column + 16 * kLatentColumns <= task.latent_dim; column += 16 * kLatentColumns) {
    LatentColumns<kLatentColumns>(task, scores, column);
  }
  for (; column < task.latent_dim; column += 16) {
    LatentColumns<1>(task, scores, column);
  }
}

// Per head, what brings two results to the larger of their maxima.
struct MergeFactors {
  float keep[16];
  float add[16];
};

// Merges maxima and totals of a block into those of `all`.
MergeFactors MergeSoftmax(const AttentionTask& block, const AttentionTask& all) {
  MergeFactors factors;
  const V16 before = Load(all.maxima);
  const V16 added = Load(block.maxima);
  const V16 largest = Max(before, added);
  Store(Exp(Sub(before, largest)), factors.keep);
  Store(Exp(Sub(added, largest)), factors.add);
  Store(largest, all.maxima);
  Store(Fma(Load(block.totals), Load(factors.add),
            Mul(Load(all.totals), Load(factors.keep))),
        all.totals);
  return factors;
}

// out = out * keep + block * add.
void MergeAttention(const AttentionTask& block, const AttentionTask& all) {
  const MergeFactors factors = MergeSoftmax(block, all);
  for (int64_t h = 0; h < all.heads; ++h) {
    const V16 factor = Set(factors.keep[h]);
    const V16 of_block = Set(factors.add[h]);
    float* out = all.out + h * all.out_stride;
    Map2(out, block.out + h * block.out_stride, out, all.latent_dim,
         [=](V16 sum, V16 more) { return Fma(more, of_block, Mul(sum, factor)); });
  }
}

void FinishAttention(const AttentionTask& all) {
  for (int64_t h = 0; h < all.heads; ++h) {
    const V16 total = Set(all.totals[h]);
    float* out = all.out + h * all.out_stride;
    Map1(out, out, all.latent_dim, [=](V16 sum) { return Div(sum, total); });
  }
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_ATTENTION_SIMD_LATENT_ATTENTION_H_
