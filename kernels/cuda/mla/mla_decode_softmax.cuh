// Scores of a tile to weights, in the fragments that the tensor cores leave: a thread has
// 16 columns of two rows, four lanes a row. Weights are powers of 2, relative to the
// largest score of their row so far.
#ifndef TESSERA_KERNELS_CUDA_MLA_MLA_DECODE_SOFTMAX_CUH_
#define TESSERA_KERNELS_CUDA_MLA_MLA_DECODE_SOFTMAX_CUH_

#include <cmath>
#include <cstdint>

#include "kernels/cuda/mla/mla_decode_layout.cuh"
#include "kernels/cuda/primitives/matrix_descriptor.cuh"
#include "kernels/cuda/primitives/weight_decode.cuh"

namespace tessera::kernels::cuda::mla {

// Of the two heads whose scores a thread has, rows r and r + 8 of the tile.
struct Softmax {
  float largest[2] = {-INFINITY, -INFINITY};
  float total[2] = {};  // of the thread's columns, until Totals
};

// In which of a thread's two rows value i of a fragment is, and in which column, but for
// the thread's own 2 (lane % 4).
constexpr uint32_t FragmentHalf(uint32_t i) { return i / 2 % 2; }
constexpr uint32_t FragmentColumn(uint32_t i) { return i / 4 * 8 + i % 2; }

// The largest of each row so far, into `softmax`; returns in `shrinks` what earlier
// sums are multiplied by. Columns from `count` on are no rows of the cache.
TESSERA_DEVICE inline void FindLargest(Thread& thread, float scale, uint32_t count,
                                       float (&scores)[kScores], Softmax& softmax,
                                       float (&shrinks)[2]) {
  float largest[2] = {softmax.largest[0], softmax.largest[1]};
  TESSERA_UNROLL
  for (uint32_t i = 0; i < kScores; ++i) {
    if (FragmentColumn(i) + 2 * (thread.lane() % 4) >= count) {
      scores[i] = -INFINITY;
    }
    largest[FragmentHalf(i)] = fmaxf(largest[FragmentHalf(i)], scores[i]);
  }
  TESSERA_UNROLL
  for (uint32_t half = 0; half < 2; ++half) {  // the four lanes of a row
    largest[half] = fmaxf(largest[half], thread.ShuffleXor(largest[half], 1));
    largest[half] = fmaxf(largest[half], thread.ShuffleXor(largest[half], 2));
    shrinks[half] = exp2f((softmax.largest[half] - largest[half]) * scale);
    softmax.largest[half] = largest[half];
  }
}

// Weights of two neighbours in a word each, and their totals, of what was rounded.
TESSERA_DEVICE inline void FindWeights(Thread& thread, float scale,
                                       const float (&scores)[kScores],
                                       const float (&shrinks)[2], Softmax& softmax,
                                       uint32_t (&pairs)[kScores / 2]) {
  float of_tile[2] = {};
  TESSERA_UNROLL
  for (uint32_t i = 0; i < kScores; i += 2) {
    const uint32_t half = FragmentHalf(i);
    const float shift = -(softmax.largest[half] * scale);
    const uint32_t pair = thread.PackBF16(exp2f(fmaf(scores[i], scale, shift)),
                                          exp2f(fmaf(scores[i + 1], scale, shift)));
    of_tile[half] += FloatOfBits(pair << 16);
    of_tile[half] += FloatOfBits(pair & 0xffff0000U);
    pairs[i / 2] = pair;
  }
  TESSERA_UNROLL
  for (uint32_t half = 0; half < 2; ++half) {
    softmax.total[half] = fmaf(softmax.total[half], shrinks[half], of_tile[half]);
  }
}

TESSERA_DEVICE inline void StoreWeights(Thread& thread, uint32_t stage, uint32_t row,
                                        const float (&shrinks)[2],
                                        const uint32_t (&pairs)[kScores / 2]) {
  const SharedSpan<uint32_t> words =
      Words(thread, Chunk(stage, kLatentChunks), kChunkBytes);
  TESSERA_UNROLL
  for (uint32_t i = 0; i < kScores; i += 2) {
    const uint32_t column = FragmentColumn(i) + 2 * (thread.lane() % 4);
    const uint32_t at = (row + 8 * FragmentHalf(i)) * kLineBytes + 2 * column;
    thread.Store(words, SwizzledByte(at) / 4, pairs[i / 2]);
  }
  if (thread.lane() % 4 == 0) {
    thread.Store(Shrinks(thread), stage * kMlaTileHeads + row, shrinks[0]);
    thread.Store(Shrinks(thread), stage * kMlaTileHeads + row + 8, shrinks[1]);
  }
}

// The lanes of a row add up.
TESSERA_DEVICE inline void StoreTotals(Thread& thread, uint32_t row, Softmax& softmax) {
  TESSERA_UNROLL
  for (uint32_t half = 0; half < 2; ++half) {
    float& total = softmax.total[half];
    total += thread.ShuffleXor(total, 1);
    total += thread.ShuffleXor(total, 2);
    if (thread.lane() % 4 == 0) {
      thread.Store(Totals(thread), row + 8 * half, total);
    }
  }
}

}  // namespace tessera::kernels::cuda::mla

#endif  // TESSERA_KERNELS_CUDA_MLA_MLA_DECODE_SOFTMAX_CUH_
