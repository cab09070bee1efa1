// Engram. Rows are decoded a thread to a value. The gate gives a warp to a token's
// stream: 16 lanes sum, all 32 threads add. The convolution is two kernels, since tokens
// of one call look back at each other: a warp normalises a stream into the cache, then a
// thread sums a channel. All are bound by memory: 3 to 8 bytes a decoded value, 16 and 28
// a channel of the others. Exact but for exp and sqrt.
#include <cmath>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/primitives/device_tensor.cuh"
#include "kernels/cuda/primitives/group_scale.cuh"
#include "kernels/cuda/primitives/lane_sum.cuh"
#include "kernels/cuda/primitives/paged_rows.cuh"
#include "kernels/cuda/primitives/weight_decode.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr uint32_t kBlock = 256;
constexpr int64_t kStreamsPerBlock = kBlock / kWarpSize;
constexpr int64_t kScaleGroup = 32;  // values of a packed row that share a scale byte
constexpr int64_t kKernelWidth = 4;  // taps of the convolution

struct DecodeEngramRowsKernel {
  static constexpr const char* kName = "DecodeEngramRowsKernel";
  DeviceRows<const uint8_t> rows;
  bool packed;
  int64_t width;
  int64_t row_bytes;
  DeviceRows<float> out;

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t stride = int64_t{thread.grid_dim().x} * kBlock;
    for (int64_t at = GlobalIndex(thread); at < out.rows * out.cols; at += stride) {
      const int64_t row = at / out.cols;
      const int64_t col = at % out.cols;
      const int64_t begin = rows.Begin(row) + col / width * row_bytes;
      const int64_t i = col % width;
      float value;
      if (packed) {
        const uint32_t scale = thread.Load(rows.span, begin + width + i / kScaleGroup);
        value = DecodeE4M3(thread.Load(rows.span, begin + i)) * DecodeE8M0(scale);
        value = FloatOfBits(EncodeBf16(value) << 16);
      } else {
        const uint32_t low = thread.Load(rows.span, begin + 2 * i);
        const uint32_t high = thread.Load(rows.span, begin + 2 * i + 1);
        value = FloatOfBits(low << 16 | high << 24);
      }
      thread.Store(out.span, out.Begin(row) + col, value);
    }
  }
};

// 1 / sqrt(sum / n + eps).
TESSERA_DEVICE inline float InverseRms(float sum, int64_t n, float eps) {
  return 1.0F / sqrtf(sum / static_cast<float>(n) + eps);
}

TESSERA_DEVICE inline float Sigmoid(float x) { return 1.0F / (1.0F + expf(-x)); }

struct EngramGateKernel {
  static constexpr const char* kName = "EngramGateKernel";
  DeviceRows<float> streams;  // [t, stream]
  DeviceRows<const float> kv;
  DeviceWeight q_weight;
  DeviceWeight k_weight;
  float eps;
  float scale;
  bool sign_of_zero;  // a dot of 0 has a sign too, else its gate is sigmoid(0)
  DeviceRows<float> gate;
  bool separate;
  DeviceRows<float> gated;  // [t, stream], if separate

  TESSERA_DEVICE float GateOf(float dot) const {
    if (!sign_of_zero && dot == 0) {
      return Sigmoid(0.0F);
    }
    // A comparison that leaves a NaN as it is.
    const float magnitude = fabsf(dot) < 1e-6F ? 1e-6F : fabsf(dot);
    return Sigmoid(copysignf(sqrtf(magnitude), dot));
  }

  TESSERA_DEVICE float Gate(Thread& thread, int64_t h, int64_t key, int64_t j) const {
    float dot = 0;
    float h_squares = 0;
    float key_squares = 0;
    for (int64_t i = thread.lane() % kLanes; i < streams.cols; i += kLanes) {
      const float h_value = thread.Load(streams.span, h + i);
      const float key_value = thread.Load(kv.span, key + i);
      const float weighted = h_value * (LoadWeight(thread, q_weight, j, i) *
                                        LoadWeight(thread, k_weight, j, i));
      dot = fmaf(weighted, key_value, dot);
      h_squares = fmaf(h_value, h_value, h_squares);
      key_squares = fmaf(key_value, key_value, key_squares);
    }
    dot = ReduceLanes(thread, dot);
    h_squares = ReduceLanes(thread, h_squares);
    key_squares = ReduceLanes(thread, key_squares);
    dot = dot * InverseRms(h_squares, streams.cols, eps) *
          InverseRms(key_squares, streams.cols, eps) * scale;
    return thread.Shuffle(GateOf(dot), 0);
  }

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t d = streams.cols;
    const int64_t m = streams.inner;
    const int64_t stride = int64_t{thread.grid_dim().x} * kStreamsPerBlock;
    for (int64_t row = GlobalIndex(thread) / kWarpSize; row < streams.rows;
         row += stride) {
      const int64_t t = row / m;
      const int64_t j = row % m;
      const int64_t h = streams.Begin(row);
      const float factor = Gate(thread, h, kv.Begin(t) + j * d, j);
      if (thread.lane() == 0) {
        thread.Store(gate.span, gate.Begin(t) + j, factor);
      }
      thread.SyncWarp();  // in place: all lanes have read
      for (int64_t i = thread.lane(); i < d; i += kWarpSize) {
        const float value = thread.Load(kv.span, kv.Begin(t) + m * d + i);
        if (separate) {
          thread.Store(gated.span, gated.Begin(row) + i, factor * value);
        } else {
          thread.Store(streams.span, h + i,
                       fmaf(factor, value, thread.Load(streams.span, h + i)));
        }
      }
    }
  }
};

struct EngramNormKernel {
  static constexpr const char* kName = "EngramNormKernel";
  DeviceRows<const float> gated;  // [t, stream]
  DeviceWeight norm;
  float eps;
  DeviceRows<float> cache;
  DevicePages pages;

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t d = gated.cols;
    const int64_t stride = int64_t{thread.grid_dim().x} * kStreamsPerBlock;
    for (int64_t row = GlobalIndex(thread) / kWarpSize; row < gated.rows; row += stride) {
      const int64_t t = row / gated.inner;
      const int64_t j = row % gated.inner;
      const int64_t position =
          thread.Load(pages.positions.span, pages.positions.Begin(t));
      if (position < 0) {
        continue;  // the whole warp
      }
      float sum = 0;
      for (int64_t i = thread.lane() % kLanes; i < d; i += kLanes) {
        const float value = thread.Load(gated.span, gated.Begin(row) + i);
        sum = fmaf(value, value, sum);
      }
      sum = thread.Shuffle(ReduceLanes(thread, sum), 0);
      const float factor = InverseRms(sum, d, eps);
      const int64_t to = cache.Begin(pages.RowOf(thread, t, position)) + j * d;
      for (int64_t i = thread.lane(); i < d; i += kWarpSize) {
        thread.Store(cache.span, to + i,
                     thread.Load(gated.span, gated.Begin(row) + i) * factor *
                         LoadWeight(thread, norm, j, i));
      }
    }
  }
};

struct EngramConvKernel {
  static constexpr const char* kName = "EngramConvKernel";
  DeviceRows<const float> gated;  // [t, stream]
  DeviceRows<float> streams;      // [t, stream]
  DeviceWeight kernel;
  int64_t dilation;
  DeviceRows<const float> cache;
  DevicePages pages;

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t channels = gated.inner * gated.cols;
    const int64_t stride = int64_t{thread.grid_dim().x} * kBlock;
    for (int64_t at = GlobalIndex(thread); at < gated.rows * gated.cols; at += stride) {
      const int64_t t = at / channels;
      const int64_t channel = at % channels;
      const int64_t newest = thread.Load(pages.positions.span, pages.positions.Begin(t));
      float sum = 0;
      for (int64_t tap = 0; tap < kKernelWidth; ++tap) {
        const int64_t position = newest - (kKernelWidth - 1 - tap) * dilation;
        if (position >= 0) {
          const int64_t row = pages.RowOf(thread, t, position);
          sum = fmaf(LoadWeight(thread, kernel, channel, tap),
                     thread.Load(cache.span, cache.Begin(row) + channel), sum);
        }
      }
      const int64_t col = at % gated.cols;
      const int64_t to = streams.Begin(at / gated.cols) + col;
      const float u = thread.Load(gated.span, gated.Begin(at / gated.cols) + col);
      thread.Store(streams.span, to,
                   thread.Load(streams.span, to) + (u + sum / (1.0F + expf(-sum))));
    }
  }
};

}  // namespace

void DecodeEngramRows(GpuStream& stream, TensorView rows, DType format, int64_t width,
                      TensorView out) {
  const bool packed = format == DType::kF8E4M3;
  TESSERA_CHECK(packed || format == DType::kBF16);
  const int64_t row_bytes = packed ? width + width / kScaleGroup : 2 * width;
  TESSERA_CHECK_EQ(rows.dim(1) % row_bytes, 0);
  TESSERA_CHECK_EQ(out.dim(1), rows.dim(1) / row_bytes * width);
  if (!out.empty()) {
    Launch(stream, EachValueConfig(out.num_elements(), kBlock),
           DecodeEngramRowsKernel{RowsOf<const uint8_t>(rows), packed, width, row_bytes,
                                  RowsOf<float>(out)});
  }
}

void EngramGate(GpuStream& stream, const EngramGateArgs& args) {
  const int64_t d = args.streams.dim(2);
  TESSERA_CHECK_EQ(args.kv.dim(1), (args.streams.dim(1) + 1) * d);
  EngramGateKernel kernel;
  kernel.streams = RowsOf<float>(args.streams);
  kernel.kv = RowsOf<const float>(args.kv);
  kernel.q_weight = WeightOf(args.q_weight);
  kernel.k_weight = WeightOf(args.k_weight);
  kernel.eps = static_cast<float>(args.eps);
  kernel.scale = 1.0F / std::sqrt(static_cast<float>(d));
  kernel.sign_of_zero = args.sign == EngramGateSign::kCopysign;
  kernel.gate = RowsOf<float>(args.gate);
  kernel.separate = args.gated.rank > 0;
  if (kernel.separate) {
    kernel.gated = RowsOf<float>(args.gated);
  }
  if (!args.streams.empty()) {
    Launch(stream, EachValueConfig(kernel.streams.rows * kWarpSize, kBlock), kernel);
  }
}

void EngramConv(GpuStream& stream, const EngramConvArgs& args) {
  TESSERA_CHECK_EQ(args.cache.dim(2), args.gated.dim(1) * args.gated.dim(2));
  TESSERA_CHECK_EQ(args.kernel.cols, kKernelWidth);
  if (args.gated.empty()) {
    return;
  }
  const auto gated = RowsOf<const float>(args.gated);
  const DevicePages pages = PagesOf(args.index);
  Launch(stream, EachValueConfig(gated.rows * kWarpSize, kBlock),
         EngramNormKernel{gated, WeightOf(args.norm), static_cast<float>(args.eps),
                          RowsOf<float>(args.cache), pages});
  Launch(stream, EachValueConfig(args.gated.num_elements(), kBlock),
         EngramConvKernel{gated, RowsOf<float>(args.streams), WeightOf(args.kernel),
                          args.dilation, RowsOf<const float>(args.cache), pages});
}

}  // namespace tessera::kernels::cuda
