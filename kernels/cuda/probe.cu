// Two kernels whose speed is a limit of the device: reading memory, and float32
// multiply-adds. For benchmarks; no model runs them.
//
// ReadAll: each thread sums vectors of 16 bytes, four of them under way at once: 64 bytes
// x 2048 threads of an SM are 128 KiB, more than bandwidth times latency of one SM
// (3.35 TB/s / 132 x 1 us = 25 KB). A warp adds its sum once.
// MultiplyAdds: 8 chains a thread, so that with 16 warps of each scheduler none waits for
// the 4 cycles of the one before; no memory but one value a thread.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/primitives/device_tensor.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr uint32_t kBlock = 256;
constexpr int kWords = 4;    // of a vector
constexpr int kVectors = 4;  // under way
constexpr int kChains = 8;

struct ReadAllKernel {
  static constexpr const char* kName = "ReadAllKernel";
  GlobalSpan<const uint32_t> words;
  GlobalSpan<uint32_t> sum;

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t stride = int64_t{thread.grid_dim().x} * kBlock;
    const int64_t vectors = words.size / kWords;
    uint32_t mine = 0;
    int64_t i = GlobalIndex(thread);
    for (; i + (kVectors - 1) * stride < vectors; i += kVectors * stride) {
      Vector<uint32_t, kWords> read[kVectors];
      for (int v = 0; v < kVectors; ++v) {
        read[v] = thread.LoadVector<kWords>(words, (i + v * stride) * kWords);
      }
      for (int v = 0; v < kVectors; ++v) {
        for (int w = 0; w < kWords; ++w) {
          mine += read[v].values[w];
        }
      }
    }
    for (; i < vectors; i += stride) {
      const Vector<uint32_t, kWords> read = thread.LoadVector<kWords>(words, i * kWords);
      for (int w = 0; w < kWords; ++w) {
        mine += read.values[w];
      }
    }
    for (uint32_t lanes = kWarpSize / 2; lanes > 0; lanes /= 2) {
      mine += thread.ShuffleXor(mine, lanes);
    }
    if (thread.lane() == 0) {
      thread.AtomicAdd(sum, 0, mine);
    }
  }
};

// Chain c of thread i: x = i + c, then `rounds` times x = x / 2 + 1.
struct MultiplyAddsKernel {
  static constexpr const char* kName = "MultiplyAddsKernel";
  GlobalSpan<float> out;
  int64_t rounds;

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t i = GlobalIndex(thread);
    float chains[kChains];
    for (int c = 0; c < kChains; ++c) {
      chains[c] = static_cast<float>(i + c);
    }
    for (int64_t round = 0; round < rounds; ++round) {
      for (int c = 0; c < kChains; ++c) {
        chains[c] = fmaf(chains[c], 0.5F, 1.0F);
      }
    }
    float sum = 0;
    for (int c = 0; c < kChains; ++c) {
      sum += chains[c];
    }
    if (i < out.size) {
      thread.Store(out, i, sum);
    }
  }
};

}  // namespace

// Sums of unsigned words wrap around, which those of int32 may not.
void ReadAll(GpuStream& stream, TensorView words, int64_t max_blocks, TensorView sum) {
  TESSERA_CHECK_EQ(words.num_elements() % kWords, 0);
  const int64_t blocks =
      std::min<int64_t>(max_blocks, BlocksFor(words.num_elements() / kWords, kBlock));
  Launch(stream, {.grid = {static_cast<uint32_t>(blocks)}, .block = {kBlock}},
         ReadAllKernel{{reinterpret_cast<const uint32_t*>(words.as<int32_t>()),
                        words.num_elements()},
                       {reinterpret_cast<uint32_t*>(sum.as<int32_t>()), 1}});
}

double MultiplyAdds(GpuStream& stream, int64_t rounds, TensorView out) {
  Launch(stream, {.grid = {BlocksFor(out.num_elements(), kBlock)}, .block = {kBlock}},
         MultiplyAddsKernel{{out.as<float>(), out.num_elements()}, rounds});
  return static_cast<double>(out.num_elements()) * kChains * static_cast<double>(rounds);
}

}  // namespace tessera::kernels::cuda
