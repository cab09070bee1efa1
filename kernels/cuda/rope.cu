// Rotations of heads. Rope: a thread turns one pair of one head; the frequencies come as
// an argument. Hadamard: a block makes a row, log2(D) stages in place with a barrier
// after each; 8 log2(D) bytes a value, of which the caches take all but the first. Rope's
// sine and cosine are of float64, so they differ from the host's in the last bit at most.
#include <cmath>
#include <iterator>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/primitives/device_tensor.cuh"
#include "kernels/cuda/primitives/sine_cosine.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr uint32_t kBlock = 256;
constexpr uint32_t kHadamardBlock = 128;
constexpr int64_t kMaxGrid = 65535;

struct RopeKernel {
  static constexpr const char* kName = "RopeKernel";
  DeviceRows<float> x;  // [t, head]
  DeviceRows<const int32_t> positions;
  int64_t num_pairs;
  bool interleaved;
  float inv_freq[kMaxRopePairs];

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t stride = int64_t{thread.grid_dim().x} * kBlock;
    for (int64_t i = GlobalIndex(thread); i < x.rows * num_pairs; i += stride) {
      const int64_t row = i / num_pairs;
      const int64_t pair = i % num_pairs;
      const auto position =
          static_cast<float>(thread.Load(positions.span, positions.Begin(row / x.inner)));
      const auto angle = static_cast<double>(position * inv_freq[pair]);
      const auto [sine, cosine] = SineCosineOf(thread, angle);
      const int64_t first = x.Begin(row) + (interleaved ? 2 * pair : pair);
      const int64_t second = first + (interleaved ? 1 : num_pairs);
      const float a = thread.Load(x.span, first);
      const float b = thread.Load(x.span, second);
      thread.Store(x.span, first, a * cosine - b * sine);
      thread.Store(x.span, second, a * sine + b * cosine);
    }
  }
};

struct HadamardKernel {
  static constexpr const char* kName = "HadamardKernel";
  DeviceRows<float> x;
  float factor;

  TESSERA_DEVICE void operator()(Thread& thread) const {
    for (int64_t row = thread.block_idx().x; row < x.rows; row += thread.grid_dim().x) {
      const int64_t begin = x.Begin(row);
      for (int64_t half = 1; half < x.cols; half *= 2) {
        for (int64_t i = thread.linear_thread(); i < x.cols / 2; i += kHadamardBlock) {
          const int64_t first = begin + i / half * 2 * half + i % half;
          const float a = thread.Load(x.span, first);
          const float b = thread.Load(x.span, first + half);
          thread.Store(x.span, first, a + b);
          thread.Store(x.span, first + half, a - b);
        }
        thread.SyncBlock();
      }
      for (int64_t i = thread.linear_thread(); i < x.cols; i += kHadamardBlock) {
        thread.Store(x.span, begin + i, thread.Load(x.span, begin + i) * factor);
      }
    }
  }
};

}  // namespace

void Rope(GpuStream& stream, TensorView x, TensorView positions,
          std::span<const float> inv_freq, RopePairing pairing) {
  TESSERA_CHECK_LE(std::ssize(inv_freq), kMaxRopePairs);
  TESSERA_CHECK_LE(2 * static_cast<int64_t>(inv_freq.size()), x.dim(2));
  RopeKernel kernel = {RowsOf<float>(x),
                       ColumnOf<const int32_t>(positions),
                       static_cast<int64_t>(inv_freq.size()),
                       pairing == RopePairing::kInterleaved,
                       {}};
  for (size_t i = 0; i < inv_freq.size(); ++i) {
    kernel.inv_freq[i] = inv_freq[i];
  }
  const int64_t count = kernel.x.rows * kernel.num_pairs;
  if (count > 0) {
    Launch(stream, EachValueConfig(count, kBlock), kernel);
  }
}

void Hadamard(GpuStream& stream, TensorView x) {
  const int64_t size = x.dim(x.rank - 1);
  TESSERA_CHECK(size > 0 && (size & (size - 1)) == 0);
  const HadamardKernel kernel = {
      RowsOf<float>(x), static_cast<float>(1.0 / std::sqrt(static_cast<double>(size)))};
  if (kernel.x.rows > 0) {
    const int64_t blocks = kernel.x.rows < kMaxGrid ? kernel.x.rows : kMaxGrid;
    Launch(stream, {.grid = {static_cast<uint32_t>(blocks)}, .block = {kHadamardBlock}},
           kernel);
  }
}

}  // namespace tessera::kernels::cuda
