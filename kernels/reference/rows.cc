#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/reference/reference_ops.h"
#include "kernels/reference/sums.h"
#include "kernels/reference/weight_decode.h"
#include "model/formats/number_formats.h"

namespace tessera::kernels::reference {
namespace {

// Views of rank 1 to 4 as [a, b, c, last]: missing leading dimensions are 1.
TensorView AsRank4(TensorView x) {
  TensorView out = x;
  out.rank = TensorView::kMaxRank;
  const int missing = TensorView::kMaxRank - x.rank;
  for (int i = 0; i < TensorView::kMaxRank; ++i) {
    const auto at = static_cast<size_t>(i);
    const auto from = static_cast<size_t>(i - missing);
    out.shape[at] = i < missing ? 1 : x.shape[from];
    out.strides[at] = i < missing ? 0 : x.strides[from];
  }
  return out;
}

template <typename T>
T* RowOf(const TensorView& x, int64_t a, int64_t b, int64_t c) {
  return x.as<T>() + a * x.stride(0) + b * x.stride(1) + c * x.stride(2);
}

// Calls visit(row of x, row of y, length) for the rows of two views of the same shape.
template <typename T, typename Visit>
void ForEachRowPair(TensorView first, TensorView second, Visit visit) {
  const TensorView x = AsRank4(first);
  const TensorView y = AsRank4(second);
  TESSERA_CHECK(x.shape == y.shape);
  for (int64_t a = 0; a < x.dim(0); ++a) {
    for (int64_t b = 0; b < x.dim(1); ++b) {
      for (int64_t c = 0; c < x.dim(2); ++c) {
        visit(RowOf<T>(x, a, b, c), RowOf<T>(y, a, b, c), x.dim(3));
      }
    }
  }
}

}  // namespace

template <typename T>
void Embedding(const WeightView& table, TensorView ids, TensorView out) {
  for (int64_t t = 0; t < ids.dim(0); ++t) {
    DecodeRow(table, *ids.row<int32_t>(t), 0, table.cols, out.row<T>(t));
  }
}

template <typename T>
void RmsNorm(TensorView x, const WeightView& weight, double eps, TensorView out) {
  const std::vector<T> scale = DecodeAll<T>(weight);
  TESSERA_CHECK_EQ(weight.rows * weight.cols, x.dim(x.rank - 1));
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
void FakeQuantizeE4M3(TensorView x) {
  ForEachRowPair<T>(x, x, [](const T*, T* values, int64_t n) {
    float largest = model::kActivationAmaxFloor;
    bool damaged = false;
    for (int64_t i = 0; i < n; ++i) {
      const float size = std::abs(static_cast<float>(values[i]));
      damaged = damaged || std::isnan(size);
      largest = std::max(largest, size);
    }
    const float scale = damaged ? std::numeric_limits<float>::quiet_NaN()
                                : model::PowerOfTwoCeil(largest * (1.0F / 448.0F));
    for (int64_t i = 0; i < n; ++i) {
      const float code_value =
          model::E4M3ToFloat(model::FloatToE4M3(static_cast<float>(values[i]) / scale));
      values[i] = static_cast<T>(code_value * scale);
    }
  });
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
void SiluMul(TensorView gate, TensorView up, TensorView out) {
  for (int64_t t = 0; t < gate.dim(0); ++t) {
    for (int64_t i = 0; i < gate.dim(1); ++i) {
      out.row<T>(t)[i] = Silu(gate.row<T>(t)[i]) * up.row<T>(t)[i];
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
    TESSERA_CHECK(row >= 0 && row < x.dim(0));
    Copy<T>(x.Rows(row, 1), out.Rows(i, 1));
  }
}

template <typename T>
void StorePaged(TensorView x, TensorView slots, TensorView cache) {
  const int64_t block_size = cache.dim(1);
  for (int64_t t = 0; t < x.dim(0); ++t) {
    const int64_t slot = *slots.row<int32_t>(t);
    TESSERA_CHECK(slot >= 0 && slot < cache.dim(0) * block_size);
    std::copy_n(x.row<T>(t), x.dim(1),
                cache.row<T>(slot / block_size, slot % block_size));
  }
}

#define TESSERA_INSTANTIATE(T)                                                 \
  template void Embedding<T>(const WeightView&, TensorView, TensorView);       \
  template void RmsNorm<T>(TensorView, const WeightView&, double, TensorView); \
  template void LayerNorm<T>(TensorView, const float*, const float*, double,   \
                             TensorView);                                      \
  template void FakeQuantizeE4M3<T>(TensorView);                               \
  template void Scale<T>(TensorView, double);                                  \
  template void SiluMul<T>(TensorView, TensorView, TensorView);                \
  template void Add<T>(TensorView, TensorView);                                \
  template void Copy<T>(TensorView, TensorView);                               \
  template void GatherRows<T>(TensorView, TensorView, TensorView);             \
  template void StorePaged<T>(TensorView, TensorView, TensorView);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(double)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernels::reference
