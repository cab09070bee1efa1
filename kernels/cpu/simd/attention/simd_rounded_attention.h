// Absorbed MLA in 8 bits, written once for all instruction sets: RoundedAttentionTask of
// attention_tasks.h says what is computed. Included through simd_table.h only.
//
// Scores have 16 heads in the lanes, four values in the bytes of a lane, and a row of the
// cache is broadcast word by word, as the rows of x of simd_rounded.h. Weighted sums have
// 16 columns in the lanes, four rows in the bytes of a lane, and the probabilities of a
// head are broadcast: nothing is added across lanes, and out is written as it lies.
//
// AVX-512 with VNNI, one dot product a cycle (Zen 4): per group of 12 rows 96 of them, 12
// products of scales and 12 multiply-adds on the same ports, 108 loads of two a cycle:
// 120 cycles for 6144 products; sums of 8 heads, two vectors of columns and 32 rows are
// 128 dot products, 16 multiply-adds, 80 loads. A block of 96 rows of 512 + 64 values is
// 17 K and 14 K cycles for 0.9 and 0.8 M products, where float32 has 55 K and 49 K at
// best; softmax and probabilities take 4 K.
#ifndef TESSERA_KERNELS_CPU_SIMD_ATTENTION_SIMD_ROUNDED_ATTENTION_H_
#define TESSERA_KERNELS_CPU_SIMD_ATTENTION_SIMD_ROUNDED_ATTENTION_H_

namespace tessera::kernels::cpu::TESSERA_SIMD_ISA {
namespace {

static_assert(kAttentionRows % kScoreRows == 0);
static_assert(kScoreRows % kRoundedBlockRows == 0 || kRoundedBlockRows % kScoreRows == 0);
static_assert(kProbabilityBytes <= 2 * 4 * kAttentionHeads);

// ---- scores ----

// scores[i][head] of kScoreRows rows from `row` on; beyond the last one they mean
// nothing.
TESSERA_APART void RoundedScores(const RoundedAttentionTask& task, int64_t row,
                                 float* scores) {
  const int64_t groups = task.leaves.begin[task.leaves.count];
  const int64_t first = FirstGroupOf(task.leaves, row);
  // From the first row to the j-th, in places of a group.
  const auto apart = [groups](int j) {
    return j / kRoundedBlockRows * groups * kRoundedBlockRows + j % kRoundedBlockRows;
  };
  V16 sums[kScoreRows];
#pragma GCC unroll 16
  for (int j = 0; j < kScoreRows; ++j) {
    sums[j] = Zero();
  }
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t at = first + g * kRoundedBlockRows;
    const int8_t* keys = task.rows.keys.codes + at * kRoundedGroup * kRoundedValueBytes;
    I16 dots[kScoreRows];
#pragma GCC unroll 16
    for (int j = 0; j < kScoreRows; ++j) {
      dots[j] = StartDots(task.rows.keys.offsets[at + apart(j)]);
    }
#pragma GCC unroll 8
    for (int run = 0; run < kRoundedRuns; ++run) {
      const RoundedWeights q =
          LoadWeights(task.q.codes + g * kRoundedGroupBytes + 64 * run);
#pragma GCC unroll 16
      for (int j = 0; j < kScoreRows; ++j) {
        const int8_t* word =
            keys + (apart(j) * kRoundedGroup + 4 * run) * kRoundedValueBytes;
        dots[j] = AddBiasedDots(dots[j], q, LoadInput(word));
      }
    }
    const V16 scale = Load(task.q.scales + g * 16);
#pragma GCC unroll 16
    for (int j = 0; j < kScoreRows; ++j) {
      const V16 factor = Mul(scale, Set(task.rows.keys.scales[at + apart(j)]));
      sums[j] = Fma(IntsToFloats(dots[j]), factor, sums[j]);
    }
  }
#pragma GCC unroll 16
  for (int j = 0; j < kScoreRows; ++j) {
    Store(sums[j], scores + (row + j) * 16);
  }
}

// ---- weighted sums ----

// Weights over (their largest in the run / 255), in place, and that, for all runs. Rows
// that do not exist, up to a whole run, have none.
void ScaleWeights(float* weights, int64_t count, float* scales) {
  const V16 most = Set(255.0F);
  const V16 smallest = Set(kSmallestLargest);
  for (int64_t row = 0; row < count; row += kRoundedGroup) {
    const int64_t end = Smaller(row + kRoundedGroup, count);
    V16 largest = Zero();
    for (int64_t i = row; i < end; ++i) {
      largest = Max(largest, Load(weights + i * 16));
    }
    const V16 factor = SelectLess(largest, smallest, Zero(), Div(most, largest));
    Store(SelectLess(largest, smallest, Zero(), Div(largest, most)),
          scales + row / kRoundedGroup * 16);
    for (int64_t i = row; i < row + kRoundedGroup; ++i) {
      Store(i < end ? Mul(Load(weights + i * 16), factor) : Zero(), weights + i * 16);
    }
  }
}

// The probabilities of a run of `count` rows for one tile of columns, of all heads.
void RoundProbabilities(const float* weights, const float* weight_scales,
                        const float* steps, int64_t count, uint8_t* codes,
                        float* scales) {
  float largest = 0.0F;
  for (int64_t i = 0; i < count; ++i) {
    largest = largest < steps[i] ? steps[i] : largest;
  }
  float shares[kRoundedGroup];
  const V16 inverse = Set(largest > 0.0F ? 1.0F / largest : 0.0F);
  for (int64_t i = 0; i < kRoundedGroup; i += 16) {
    const int64_t exist = Smaller(count - i, 16);
    Store(exist > 0 ? Mul(LoadFirst(steps + i, exist), inverse) : Zero(), shares + i);
  }
  Store(Mul(Load(weight_scales), Set(largest)), scales);
  const V16 anchor = Set(kRoundingAnchor);
  for (int64_t i = 0; i < kRoundedGroup; i += 4) {
    V16 anchored[4];
#pragma GCC unroll 4
    for (int64_t j = 0; j < 4; ++j) {
      anchored[j] = Fma(Load(weights + (i + j) * 16), Set(shares[i + j]), anchor);
    }
    StoreProbabilities(anchored, codes + i / 4 * kProbabilityBytes);
  }
}

// A tile of columns: probabilities [kAttentionQuads, heads], their scales
// [kAttentionRuns, 16], and what the sums are merged into `out` with, if they are.
struct TileTask {
  const uint8_t* codes;
  const float* scales;
  const MergeFactors* merge;
};

// kC vectors of columns of kHeads heads.
template <int kHeads, int kC>
TESSERA_APART void RoundedSums(const RoundedAttentionTask& task, const TileTask& tile,
                               int64_t head, int64_t column) {
  const AttentionTask& base = task.task;
  V16 sums[kHeads][kC];
#pragma GCC unroll 8
  for (int h = 0; h < kHeads; ++h) {
#pragma GCC unroll 2
    for (int c = 0; c < kC; ++c) {
      sums[h][c] = Zero();
    }
  }
  const uint8_t* values = task.rows.values + column / 16 * kAttentionQuads * 64;
  for (int64_t run = 0; run * kRoundedGroup < base.count; ++run) {
    I16 dots[kHeads][kC];
#pragma GCC unroll 8
    for (int h = 0; h < kHeads; ++h) {
#pragma GCC unroll 2
      for (int c = 0; c < kC; ++c) {
        dots[h][c] = ZeroInts();
      }
    }
    // Unrolled, the compiler would load the values of all quads ahead, into memory.
#pragma GCC unroll 1
    for (int64_t i = 0; i < kRoundedGroup / 4; ++i) {
      const int64_t quad = run * (kRoundedGroup / 4) + i;
      RowValues of_rows[kC];
#pragma GCC unroll 2
      for (int c = 0; c < kC; ++c) {
        of_rows[c] = LoadRowValues(values + (c * kAttentionQuads + quad) * 64);
      }
#pragma GCC unroll 8
      for (int h = 0; h < kHeads; ++h) {
        const Probabilities p =
            LoadProbabilities(tile.codes + quad * kProbabilityBytes, head + h);
#pragma GCC unroll 2
        for (int c = 0; c < kC; ++c) {
          dots[h][c] = AddRowDots(dots[h][c], of_rows[c], p);
        }
      }
    }
#pragma GCC unroll 8
    for (int h = 0; h < kHeads; ++h) {
      const V16 scale = Set(tile.scales[run * 16 + head + h]);
#pragma GCC unroll 2
      for (int c = 0; c < kC; ++c) {
        sums[h][c] = Fma(IntsToFloats(dots[h][c]), scale, sums[h][c]);
      }
    }
  }
#pragma GCC unroll 8
  for (int h = 0; h < kHeads; ++h) {
#pragma GCC unroll 2
    for (int c = 0; c < kC; ++c) {
      const int64_t at = column + 16 * c;
      float* out = base.out + (head + h) * base.out_stride + at;
      const int64_t rest = base.latent_dim - at;
      const bool whole = rest >= 16;  // a masked store takes many times as long
      V16 sum = sums[h][c];
      if (tile.merge != nullptr) {
        const V16 before = whole ? Load(out) : LoadFirst(out, rest);
        sum = Fma(sum, Set(tile.merge->add[head + h]),
                  Mul(before, Set(tile.merge->keep[head + h])));
      }
      if (whole) {
        Store(sum, out);
      } else {
        StoreFirst(sum, out, rest);
      }
    }
  }
}

template <int kC>
void RoundedColumns(const RoundedAttentionTask& task, const TileTask& tile,
                    int64_t column) {
  int64_t head = 0;
  for (; head + kSumHeads <= task.task.heads; head += kSumHeads) {
    RoundedSums<kSumHeads, kC>(task, tile, head, column);
  }
  for (; head < task.task.heads; ++head) {
    RoundedSums<1, kC>(task, tile, head, column);
  }
}

void RoundedTileSums(const RoundedAttentionTask& task, const float* weights,
                     const float* weight_scales, int64_t tile,
                     const MergeFactors* merge) {
  const AttentionTask& base = task.task;
  float* const scales = base.scratch + kAttentionRows * kAttentionHeads;
  auto* const codes =
      reinterpret_cast<uint8_t*>(scales + kAttentionRuns * kAttentionHeads);
  for (int64_t row = 0; row < base.count; row += kRoundedGroup) {
    const int64_t run = row / kRoundedGroup;
    RoundProbabilities(weights + row * 16, weight_scales + run * 16,
                       task.rows.steps + tile * kAttentionRows + row,
                       Smaller(base.count - row, kRoundedGroup),
                       codes + row / 4 * kProbabilityBytes, scales + run * 16);
  }
  const TileTask sums = {codes, scales, merge};
  const int64_t end = Smaller((tile + 1) * kValueColumns, base.latent_dim);
  int64_t column = tile * kValueColumns;
  for (; column + 16 * kSumColumns <= end; column += 16 * kSumColumns) {
    RoundedColumns<kSumColumns>(task, sums, column);
  }
  for (; column < end; column += 16) {
    RoundedColumns<1>(task, sums, column);
  }
}

void RoundedAttention(const RoundedAttentionTask& task) {
  const AttentionTask& base = task.task;
  float* const scores = base.scratch;
  for (int64_t row = 0; row < base.count; row += kScoreRows) {
    RoundedScores(task, row, scores);
  }
  LatentExponentials(base, scores);
  MergeFactors factors;
  if (task.all != nullptr) {
    factors = MergeSoftmax(base, *task.all);
  }
  float weight_scales[kAttentionRuns * kAttentionHeads];
  ScaleWeights(scores, base.count, weight_scales);
  const int64_t tiles = (base.latent_dim + kValueColumns - 1) / kValueColumns;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    RoundedTileSums(task, scores, weight_scales, tile,
                    task.all != nullptr ? &factors : nullptr);
  }
}

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_ATTENTION_SIMD_ROUNDED_ATTENTION_H_
