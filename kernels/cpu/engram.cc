#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/cpu/cpu_ops.h"

namespace tessera::kernels::cpu {
namespace {

constexpr int64_t kScaleGroup = 32;  // values of a packed row that share a scale byte
constexpr int64_t kTaps = 4;         // of the short convolution

// To nearest, ties to even.
float RoundToBf16(float value) {
  if (std::isnan(value)) {
    return value;
  }
  const auto bits = std::bit_cast<uint32_t>(value);
  return std::bit_cast<float>((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000U);
}

float InverseRms(const SimdOps& simd, const float* x, int64_t n, double eps) {
  const float mean = simd.dot(x, x, n) / static_cast<float>(n);
  return 1.0F / std::sqrt(mean + static_cast<float>(eps));
}

float GateOf(const SimdOps& simd, float dot, EngramGateSign sign) {
  float root = std::copysign(std::sqrt(std::max(std::abs(dot), 1e-6F)), dot);
  if (sign == EngramGateSign::kSign && dot == 0) {
    root = 0;
  }
  float gate;
  simd.sigmoid(&root, &gate, 1);
  return gate;
}

float* CachedRow(const EngramConvArgs& args, int64_t t, int64_t position) {
  const int32_t* blocks = BlocksOfRow(args.index, t);
  return args.cache.row<float>(blocks[position / args.index.block_size],
                               position % args.index.block_size);
}

// Writes z of every row to the cache.
void StoreNormed(CpuContext& context, const EngramConvArgs& args) {
  const int64_t m = args.gated.dim(1);
  const int64_t d = args.gated.dim(2);
  float* norm = context.shared();
  DecodeSmall(context.simd(), args.norm, norm);
  context.ParallelFor(args.gated.dim(0), args.gated.num_elements() * 2,
                      [&](int64_t begin, int64_t end, int) {
                        for (int64_t t = begin; t < end; ++t) {
                          const int64_t position = *args.index.positions.row<int32_t>(t);
                          if (position < 0) {
                            continue;
                          }
                          float* z = CachedRow(args, t, position);
                          for (int64_t j = 0; j < m; ++j) {
                            context.simd().rms_norm(
                                args.gated.row<float>(t, j), norm + j * d,
                                static_cast<float>(args.eps), z + j * d, d);
                          }
                        }
                      });
}

// Convolves channels [begin, end) of stream j, for all rows.
void ConvolveChannels(CpuContext& context, const EngramConvArgs& args, int64_t j,
                      int64_t begin, int64_t end, int thread) {
  const SimdOps& simd = context.simd();
  const int64_t count = end - begin;
  const int64_t first = j * args.gated.dim(2) + begin;
  const WeightRows kernel = ToWeightRows(args.kernel);
  float* taps = context.scratch(thread).panel;  // [kTaps, count]
  float* sums = context.scratch(thread).rows;
  for (int64_t i = 0; i < count; ++i) {
    float of_channel[kTaps];
    simd.decode_row(kernel, first + i, 0, kTaps, of_channel);
    for (int64_t a = 0; a < kTaps; ++a) {
      taps[a * count + i] = of_channel[a];
    }
  }
  for (int64_t t = 0; t < args.gated.dim(0); ++t) {
    std::fill_n(sums, count, 0.0F);
    for (int64_t a = 0; a < kTaps; ++a) {
      const int64_t position =
          *args.index.positions.row<int32_t>(t) - (kTaps - 1 - a) * args.dilation;
      if (position >= 0) {
        simd.add_product(taps + a * count, CachedRow(args, t, position) + first, sums,
                         count);
      }
    }
    simd.silu(sums, sums, count);
    const float* u = args.gated.row<float>(t, j) + begin;
    float* h = args.streams.row<float>(t, j) + begin;
    for (int64_t i = 0; i < count; ++i) {
      h[i] += u[i] + sums[i];
    }
  }
}

}  // namespace

void DecodeEngramRows(CpuContext& context, TensorView rows, DType format, int64_t width,
                      TensorView out) {
  const bool packed = format == DType::kF8E4M3;
  TESSERA_CHECK(packed || format == DType::kBF16);
  const int64_t row_bytes = packed ? width + width / kScaleGroup : 2 * width;
  TESSERA_CHECK_EQ(rows.dim(1) % row_bytes, 0);
  const int64_t columns = rows.dim(1) / row_bytes;
  TESSERA_CHECK_EQ(out.dim(1), columns * width);
  context.ParallelFor(rows.dim(0), out.num_elements(),
                      [&](int64_t begin, int64_t end, int) {
                        WeightRows w = {};
                        w.format = packed ? WeightFormat::kF8E4M3 : WeightFormat::kBf16;
                        w.scale_format = packed ? ScaleFormat::kE8M0 : ScaleFormat::kNone;
                        w.block_rows = 1;
                        w.block_cols = kScaleGroup;
                        for (int64_t t = begin; t < end; ++t) {
                          for (int64_t column = 0; column < columns; ++column) {
                            w.data = rows.row<uint8_t>(t) + column * row_bytes;
                            w.scales = w.data + width;
                            float* to = out.row<float>(t) + column * width;
                            context.simd().decode_row(w, 0, 0, width, to);
                            for (int64_t i = 0; packed && i < width; ++i) {
                              to[i] = RoundToBf16(to[i]);
                            }
                          }
                        }
                      });
}

void EngramGate(CpuContext& context, const EngramGateArgs& args) {
  const SimdOps& simd = context.simd();
  const int64_t m = args.streams.dim(1);
  const int64_t d = args.streams.dim(2);
  TESSERA_CHECK_EQ(args.kv.dim(1), (m + 1) * d);
  float* weight = context.shared();  // q_weight * k_weight
  float* k_weight = context.scratch(0).rows;
  DecodeSmall(simd, args.q_weight, weight);
  DecodeSmall(simd, args.k_weight, k_weight);
  for (int64_t i = 0; i < m * d; ++i) {
    weight[i] *= k_weight[i];
  }
  const float scale = 1.0F / std::sqrt(static_cast<float>(d));
  const auto body = [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const float* value = args.kv.row<float>(t) + m * d;
      for (int64_t j = 0; j < m; ++j) {
        float* h = args.streams.row<float>(t, j);
        const float* key = args.kv.row<float>(t) + j * d;
        const float dot = simd.dot3(h, weight + j * d, key, d) *
                          InverseRms(simd, h, d, args.eps) *
                          InverseRms(simd, key, d, args.eps) * scale;
        const float gate = GateOf(simd, dot, args.sign);
        args.gate.row<float>(t)[j] = gate;
        if (args.gated.rank == 0) {
          simd.add_scaled(gate, value, h, d);
          continue;
        }
        float* gated = args.gated.row<float>(t, j);
        for (int64_t i = 0; i < d; ++i) {
          gated[i] = gate * value[i];
        }
      }
    }
  };
  context.ParallelFor(args.streams.dim(0), args.streams.num_elements() * 4, body);
}

void EngramConv(CpuContext& context, const EngramConvArgs& args) {
  constexpr int64_t kChannels = 256;  // of one item: taps and sums stay in L1
  const int64_t m = args.gated.dim(1);
  const int64_t d = args.gated.dim(2);
  TESSERA_CHECK_EQ(args.kernel.cols, kTaps);
  TESSERA_CHECK_EQ(args.kernel.rows, m * d);
  if (args.gated.dim(0) == 0) {
    return;
  }
  // All rows are stored before any is read: rows of one call may look back at each other.
  StoreNormed(context, args);
  const int64_t per_stream = (d + kChannels - 1) / kChannels;
  context.ParallelFor(m * per_stream, args.gated.num_elements() * 8,
                      [&](int64_t begin, int64_t end, int thread) {
                        for (int64_t item = begin; item < end; ++item) {
                          const int64_t from = item % per_stream * kChannels;
                          ConvolveChannels(context, args, item / per_stream, from,
                                           std::min(from + kChannels, d), thread);
                        }
                      });
}

}  // namespace tessera::kernels::cpu
