#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/reference/reference_ops.h"
#include "kernels/reference/row_pairs.h"
#include "kernels/reference/sums.h"
#include "kernels/reference/weight_decode.h"

namespace tessera::kernels::reference {
template <typename T>
void Embedding(const WeightView& table, TensorView ids, TensorView out) {
  for (int64_t t = 0; t < ids.dim(0); ++t) {
    DecodeRow(table, *ids.row<int32_t>(t), 0, table.cols, out.row<T>(t));
  }
}

template <typename T>
void RmsNorm(TensorView x, const WeightView& weight, double eps, TensorView out) {
  const auto size = static_cast<size_t>(x.dim(x.rank - 1));
  const std::vector<T> scale =
      weight.data == nullptr ? std::vector<T>(size, T{1}) : DecodeAll<T>(weight);
  TESSERA_CHECK_EQ(scale.size(), size);
  ForEachRowPair<T>(x, out, [&](const T* in, T* to, int64_t n) {
    const T mean = Dot(in, in, n) / static_cast<T>(n);
    const T factor = T{1} / std::sqrt(mean + static_cast<T>(eps));
    for (int64_t i = 0; i < n; ++i) {
      to[i] = in[i] * factor * scale[static_cast<size_t>(i)];
    }
  });
}

template <typename T>
void LayerNorm(TensorView x, const float* weight, const float* bias, double eps,
               TensorView out) {
  std::vector<T> centred(static_cast<size_t>(x.dim(x.rank - 1)));
  ForEachRowPair<T>(x, out, [&](const T* in, T* to, int64_t n) {
    const T mean = Sum(in, n) / static_cast<T>(n);
    for (int64_t i = 0; i < n; ++i) {
      centred[static_cast<size_t>(i)] = in[i] - mean;
    }
    const T variance = Dot(centred.data(), centred.data(), n) / static_cast<T>(n);
    const T factor = T{1} / std::sqrt(variance + static_cast<T>(eps));
    for (int64_t i = 0; i < n; ++i) {
      to[i] = MulAdd(centred[static_cast<size_t>(i)] * factor, static_cast<T>(weight[i]),
                     static_cast<T>(bias[i]));
    }
  });
}

template <typename T>
void AddPositionBias(TensorView x, const WeightView& bias, TensorView positions) {
  TESSERA_CHECK_EQ(bias.cols, x.dim(1));
  std::vector<T> row(static_cast<size_t>(bias.cols));
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const int64_t position = *positions.row<int32_t>(t);
    if (position < 0) {
      continue;
    }
    DecodeRow(bias, position % bias.rows, 0, bias.cols, row.data());
    for (int64_t i = 0; i < bias.cols; ++i) {
      x.row<T>(t)[i] += row[static_cast<size_t>(i)];
    }
  }
}

template <typename T>
void Scale(TensorView x, double factor) {
  ForEachRowPair<T>(x, x, [&](const T*, T* values, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      values[i] *= static_cast<T>(factor);
    }
  });
}

template <typename T>
void SiluMul(TensorView gate, TensorView up, double limit, TensorView out) {
  const T most = limit > 0 ? static_cast<T>(limit) : std::numeric_limits<T>::infinity();
  for (int64_t t = 0; t < gate.dim(0); ++t) {
    for (int64_t i = 0; i < gate.dim(1); ++i) {
      // Comparisons that leave a NaN as it is.
      const T g = gate.row<T>(t)[i];
      const T u = up.row<T>(t)[i];
      const T limited = u > most ? most : (u < -most ? -most : u);
      out.row<T>(t)[i] = Silu(g > most ? most : g) * limited;
    }
  }
}

template <typename T>
void Add(TensorView x, TensorView out) {
  ForEachRowPair<T>(x, out, [](const T* from, T* to, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
      to[i] += from[i];
    }
  });
}

template <typename T>
void Copy(TensorView x, TensorView out) {
  ForEachRowPair<T>(x, out,
                    [](const T* from, T* to, int64_t n) { std::copy_n(from, n, to); });
}

template <typename T>
void GatherRows(TensorView x, TensorView rows, TensorView out) {
  for (int64_t i = 0; i < rows.dim(0); ++i) {
    const int64_t row = *rows.row<int32_t>(i);
    TESSERA_CHECK_LT(row, x.dim(0));
    if (row >= 0) {
      Copy<T>(x.Rows(row, 1), out.Rows(i, 1));
      continue;
    }
    const TensorView none = out.Rows(i, 1);
    ForEachRowPair<T>(none, none,
                      [](const T*, T* to, int64_t n) { std::fill_n(to, n, T{0}); });
  }
}

template <typename T>
void StorePaged(TensorView x, TensorView slots, const CacheView& cache) {
  const int64_t block_size = cache.block_size();
  TESSERA_CHECK_EQ(x.dim(1), cache.width());
  std::vector<float> values(static_cast<size_t>(x.dim(1)));
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const int64_t slot = *slots.row<int32_t>(t);
    if (slot < 0) {
      continue;
    }
    TESSERA_CHECK_LT(slot, cache.num_blocks() * block_size);
    const int64_t block = slot / block_size;
    const int64_t at = slot % block_size;
    if (!cache.format.is_packed()) {
      std::copy_n(x.row<T>(t), x.dim(1), cache.rows.row<T>(block, at));
      continue;
    }
    std::transform(x.row<T>(t), x.row<T>(t) + x.dim(1), values.begin(),
                   [](T value) { return static_cast<float>(value); });
    PackRow(cache.format, values.data(),
            reinterpret_cast<std::byte*>(cache.rows.row<uint8_t>(block, at)));
  }
}

#define TESSERA_INSTANTIATE(T)                                                 \
  template void Embedding<T>(const WeightView&, TensorView, TensorView);       \
  template void RmsNorm<T>(TensorView, const WeightView&, double, TensorView); \
  template void LayerNorm<T>(TensorView, const float*, const float*, double,   \
                             TensorView);                                      \
  template void AddPositionBias<T>(TensorView, const WeightView&, TensorView); \
  template void Scale<T>(TensorView, double);                                  \
  template void SiluMul<T>(TensorView, TensorView, double, TensorView);        \
  template void Add<T>(TensorView, TensorView);                                \
  template void Copy<T>(TensorView, TensorView);                               \
  template void GatherRows<T>(TensorView, TensorView, TensorView);             \
  template void StorePaged<T>(TensorView, TensorView, const CacheView&);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(double)
#undef TESSERA_INSTANTIATE
template void Copy<int32_t>(TensorView, TensorView);
template void GatherRows<uint8_t>(TensorView, TensorView, TensorView);

}  // namespace tessera::kernels::reference
