#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/reference/reference_ops.h"
#include "kernels/reference/sums.h"
#include "kernels/reference/weight_decode.h"

namespace tessera::kernels::reference {
namespace {

constexpr int64_t kScaleGroup = 32;  // values of a packed row that share a scale byte
constexpr int64_t kKernelWidth = 4;  // taps of the short convolution

template <typename T>
T InverseRms(const T* x, int64_t n, double eps) {
  return T{1} / std::sqrt(Dot(x, x, n) / static_cast<T>(n) + static_cast<T>(eps));
}

template <typename T>
T GateOf(T dot, EngramGateSign sign) {
  const T root = std::sqrt(std::max(std::abs(dot), static_cast<T>(1e-6)));
  if (sign == EngramGateSign::kSign && dot == 0) {
    return Sigmoid(T{0});
  }
  return Sigmoid(std::copysign(root, dot));
}

// Row of the paged cache that holds `position` of the sequence of row t.
template <typename T>
T* CachedRow(const EngramConvArgs& args, int64_t t, int64_t position) {
  const PagedIndex& index = args.index;
  const int64_t sequence = *index.sequence_of_row.row<int32_t>(t);
  const int64_t block =
      index.block_tables.row<int32_t>(sequence)[position / index.block_size];
  return args.cache.row<T>(block, position % index.block_size);
}

}  // namespace

template <typename T>
void DecodeEngramRows(TensorView rows, DType format, int64_t width, TensorView out) {
  const bool packed = format == DType::kF8E4M3;
  TESSERA_CHECK(packed || format == DType::kBF16);
  const int64_t row_bytes = packed ? width + width / kScaleGroup : 2 * width;
  TESSERA_CHECK_EQ(rows.dim(1) % row_bytes, 0);
  const int64_t columns = rows.dim(1) / row_bytes;
  TESSERA_CHECK_EQ(out.dim(1), columns * width);
  for (int64_t t = 0; t < rows.dim(0); ++t) {
    for (int64_t column = 0; column < columns; ++column) {
      const uint8_t* row = rows.as<uint8_t>() + t * rows.stride(0) + column * row_bytes;
      T* to = out.row<T>(t) + column * width;
      for (int64_t i = 0; i < width; ++i) {
        if (packed) {
          const float scale = DecodeF8E8M0(row[width + i / kScaleGroup]);
          to[i] = static_cast<T>(RoundToBf16(DecodeF8E4M3(row[i]) * scale));
        } else {
          uint16_t code;
          std::memcpy(&code, row + 2 * i, sizeof(code));
          to[i] = static_cast<T>(DecodeBf16(code));
        }
      }
    }
  }
}

template <typename T>
void EngramGate(const EngramGateArgs& args) {
  const int64_t m = args.streams.dim(1);
  const int64_t d = args.streams.dim(2);
  TESSERA_CHECK_EQ(args.kv.dim(1), (m + 1) * d);
  const std::vector<T> q_weight = DecodeAll<T>(args.q_weight);
  const std::vector<T> k_weight = DecodeAll<T>(args.k_weight);
  const T scale = T{1} / std::sqrt(static_cast<T>(d));
  std::vector<T> weighted(static_cast<size_t>(d));
  for (int64_t t = 0; t < args.streams.dim(0); ++t) {
    const T* value = args.kv.row<T>(t) + m * d;
    for (int64_t j = 0; j < m; ++j) {
      T* h = args.streams.row<T>(t, j);
      const T* key = args.kv.row<T>(t) + j * d;
      for (int64_t i = 0; i < d; ++i) {
        const auto at = static_cast<size_t>(j * d + i);
        weighted[static_cast<size_t>(i)] = h[i] * (q_weight[at] * k_weight[at]);
      }
      const T dot = Dot(weighted.data(), key, d) * InverseRms(h, d, args.eps) *
                    InverseRms(key, d, args.eps) * scale;
      const T gate = GateOf(dot, args.sign);
      args.gate.row<T>(t)[j] = gate;
      for (int64_t i = 0; i < d; ++i) {
        if (args.gated.rank == 0) {
          h[i] = MulAdd(gate, value[i], h[i]);
        } else {
          args.gated.row<T>(t, j)[i] = gate * value[i];
        }
      }
    }
  }
}

template <typename T>
void EngramConv(const EngramConvArgs& args) {
  const int64_t m = args.gated.dim(1);
  const int64_t d = args.gated.dim(2);
  const std::vector<T> kernel = DecodeAll<T>(args.kernel);
  const std::vector<T> norm = DecodeAll<T>(args.norm);
  const auto position_of = [&](int64_t t) -> int64_t {
    return *args.index.positions.row<int32_t>(t);
  };
  // All rows are stored before any is read: rows of one call may look back at each other.
  for (int64_t t = 0; t < args.gated.dim(0); ++t) {
    if (position_of(t) < 0) {
      continue;
    }
    T* z = CachedRow<T>(args, t, position_of(t));
    for (int64_t j = 0; j < m; ++j) {
      const T* u = args.gated.row<T>(t, j);
      const T factor = InverseRms(u, d, args.eps);
      for (int64_t i = 0; i < d; ++i) {
        z[j * d + i] = u[i] * factor * norm[static_cast<size_t>(j * d + i)];
      }
    }
  }
  for (int64_t t = 0; t < args.gated.dim(0); ++t) {
    std::vector<T> sums(static_cast<size_t>(m * d), T{0});
    for (int64_t a = 0; a < kKernelWidth; ++a) {
      const int64_t position = position_of(t) - (kKernelWidth - 1 - a) * args.dilation;
      if (position < 0) {
        continue;
      }
      const T* z = CachedRow<T>(args, t, position);
      for (int64_t ch = 0; ch < m * d; ++ch) {
        T& sum = sums[static_cast<size_t>(ch)];
        sum = MulAdd(kernel[static_cast<size_t>(ch * kKernelWidth + a)], z[ch], sum);
      }
    }
    for (int64_t j = 0; j < m; ++j) {
      for (int64_t i = 0; i < d; ++i) {
        args.streams.row<T>(t, j)[i] +=
            args.gated.row<T>(t, j)[i] + Silu(sums[static_cast<size_t>(j * d + i)]);
      }
    }
  }
}

#define TESSERA_INSTANTIATE(T)                                               \
  template void DecodeEngramRows<T>(TensorView, DType, int64_t, TensorView); \
  template void EngramGate<T>(const EngramGateArgs&);                        \
  template void EngramConv<T>(const EngramConvArgs&);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(double)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernels::reference
