// Scores over cached rows, written once for all instruction sets: the lightning indexer.
// Four queries (heads) meet each cached row while it is in registers. Included through
// simd_table.h only.
#ifndef TESSERA_KERNELS_CPU_SIMD_ATTENTION_SIMD_ATTENTION_H_
#define TESSERA_KERNELS_CPU_SIMD_ATTENTION_SIMD_ATTENTION_H_

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

}  // namespace
}  // namespace tessera::kernels::cpu::TESSERA_SIMD_ISA

#endif  // TESSERA_KERNELS_CPU_SIMD_ATTENTION_SIMD_ATTENTION_H_
