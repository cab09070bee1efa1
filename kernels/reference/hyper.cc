#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/reference/reference_ops.h"
#include "kernels/reference/sums.h"
#include "kernels/reference/weight_decode.h"

namespace tessera::kernels::reference {
namespace {

// (fn f) r of one token: f is its streams side by side, r the inverse root of their mean
// square.
template <typename T>
void MixOfRow(const std::vector<T>& fn, TensorView streams, int64_t t, double norm_eps,
              std::vector<T>& mix) {
  const int64_t inputs = streams.dim(1) * streams.dim(2);
  std::vector<T> flat(static_cast<size_t>(inputs));
  for (int64_t j = 0; j < streams.dim(1); ++j) {
    std::copy_n(streams.row<T>(t, j), streams.dim(2), flat.data() + j * streams.dim(2));
  }
  const T mean = Dot(flat.data(), flat.data(), inputs) / static_cast<T>(inputs);
  const T factor = T{1} / std::sqrt(mean + static_cast<T>(norm_eps));
  for (size_t row = 0; row < mix.size(); ++row) {
    mix[row] =
        Dot(fn.data() + static_cast<int64_t>(row) * inputs, flat.data(), inputs) * factor;
  }
}

template <typename T>
void DivideRows(T* a, int64_t m, T eps) {
  for (int64_t j = 0; j < m; ++j) {
    T sum = 0;
    for (int64_t k = 0; k < m; ++k) {
      sum += a[j * m + k];
    }
    for (int64_t k = 0; k < m; ++k) {
      a[j * m + k] /= sum + eps;
    }
  }
}

template <typename T>
void DivideColumns(T* a, int64_t m, T eps) {
  for (int64_t k = 0; k < m; ++k) {
    T sum = 0;
    for (int64_t j = 0; j < m; ++j) {
      sum += a[j * m + k];
    }
    for (int64_t j = 0; j < m; ++j) {
      a[j * m + k] /= sum + eps;
    }
  }
}

// Softmax of each row, plus eps; then columns, and (iterations - 1) times rows and
// columns.
template <typename T>
void Sinkhorn(T* a, int64_t m, T eps, int64_t iterations) {
  for (int64_t j = 0; j < m; ++j) {
    T* row = a + j * m;
    const T maximum = *std::max_element(row, row + m);
    T sum = 0;
    for (int64_t k = 0; k < m; ++k) {
      row[k] = std::exp(row[k] - maximum);
      sum += row[k];
    }
    for (int64_t k = 0; k < m; ++k) {
      row[k] = row[k] / sum + eps;
    }
  }
  DivideColumns(a, m, eps);
  for (int64_t i = 1; i < iterations; ++i) {
    DivideRows(a, m, eps);
    DivideColumns(a, m, eps);
  }
}

}  // namespace

template <typename T>
void ExpandStreams(TensorView x, TensorView out) {
  for (int64_t t = 0; t < x.dim(0); ++t) {
    for (int64_t j = 0; j < out.dim(1); ++j) {
      std::copy_n(x.row<T>(t), x.dim(1), out.row<T>(t, j));
    }
  }
}

template <typename T>
void HyperCoefficients(const HyperCoefficientsArgs& args) {
  const int64_t m = args.streams.dim(1);
  TESSERA_CHECK_EQ(args.fn.rows, m * (m + 2));
  const std::vector<T> fn = DecodeAll<T>(args.fn);
  std::vector<T> mix(static_cast<size_t>(args.fn.rows));
  const auto eps = static_cast<T>(args.eps);
  const auto affine = [&](int64_t at, int scale) {
    return mix[static_cast<size_t>(at)] * static_cast<T>(args.scale[scale]) +
           static_cast<T>(args.base[at]);
  };
  for (int64_t t = 0; t < args.streams.dim(0); ++t) {
    MixOfRow(fn, args.streams, t, args.norm_eps, mix);
    T* a = args.mix.row<T>(t);
    for (int64_t j = 0; j < m; ++j) {
      args.pre.row<T>(t)[j] = Sigmoid(affine(j, 0)) + eps;
      args.post.row<T>(t)[j] = T{2} * Sigmoid(affine(m + j, 1));
      for (int64_t k = 0; k < m; ++k) {
        a[j * m + k] = affine(2 * m + j * m + k, 2);
      }
    }
    Sinkhorn(a, m, eps, args.sinkhorn_iters);
  }
}

template <typename T>
void HyperCollapse(TensorView streams, TensorView pre, TensorView out) {
  for (int64_t t = 0; t < streams.dim(0); ++t) {
    for (int64_t i = 0; i < streams.dim(2); ++i) {
      T sum = 0;
      for (int64_t j = 0; j < streams.dim(1); ++j) {
        sum = MulAdd(pre.row<T>(t)[j], streams.row<T>(t, j)[i], sum);
      }
      out.row<T>(t)[i] = sum;
    }
  }
}

template <typename T>
void HyperExpand(TensorView y, TensorView post, TensorView mix, TensorView streams) {
  const int64_t m = streams.dim(1);
  std::vector<T> old(static_cast<size_t>(m));
  for (int64_t t = 0; t < y.dim(0); ++t) {
    const T* a = mix.row<T>(t);
    for (int64_t i = 0; i < y.dim(1); ++i) {
      for (int64_t j = 0; j < m; ++j) {
        old[static_cast<size_t>(j)] = streams.row<T>(t, j)[i];
      }
      for (int64_t k = 0; k < m; ++k) {
        T sum = post.row<T>(t)[k] * y.row<T>(t)[i];
        for (int64_t j = 0; j < m; ++j) {
          sum = MulAdd(a[j * mix.stride(1) + k], old[static_cast<size_t>(j)], sum);
        }
        streams.row<T>(t, k)[i] = sum;
      }
    }
  }
}

template <typename T>
void HyperHead(const HyperCoefficientsArgs& args, TensorView out) {
  const int64_t m = args.streams.dim(1);
  TESSERA_CHECK_EQ(args.fn.rows, m);
  const std::vector<T> fn = DecodeAll<T>(args.fn);
  std::vector<T> mix(static_cast<size_t>(m));
  for (int64_t t = 0; t < args.streams.dim(0); ++t) {
    MixOfRow(fn, args.streams, t, args.norm_eps, mix);
    for (int64_t j = 0; j < m; ++j) {
      T& value = mix[static_cast<size_t>(j)];
      value =
          Sigmoid(value * static_cast<T>(args.scale[0]) + static_cast<T>(args.base[j])) +
          static_cast<T>(args.eps);
    }
    HyperCollapse<T>(args.streams.Rows(t, 1), TensorView(mix.data(), kDTypeOf<T>, {1, m}),
                     out.Rows(t, 1));
  }
}

#define TESSERA_INSTANTIATE(T)                                                  \
  template void ExpandStreams<T>(TensorView, TensorView);                       \
  template void HyperCoefficients<T>(const HyperCoefficientsArgs&);             \
  template void HyperCollapse<T>(TensorView, TensorView, TensorView);           \
  template void HyperExpand<T>(TensorView, TensorView, TensorView, TensorView); \
  template void HyperHead<T>(const HyperCoefficientsArgs&, TensorView);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(double)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernels::reference
