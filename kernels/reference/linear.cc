#include <algorithm>
#include <vector>

#include "kernels/reference/reference_ops.h"
#include "kernels/reference/sums.h"
#include "kernels/reference/weight_decode.h"

namespace tessera::kernels::reference {

// The weight row is the outer loop in every op of this file: it is decoded once, then
// meets each row of x, so that a trace of a long prompt is not spent on decoding.

template <typename T>
void Linear(TensorView x, const WeightView& w, const KSplit& split, TensorView out) {
  const int64_t inputs = x.dim(1);
  TESSERA_CHECK_EQ(w.cols, inputs);
  TESSERA_CHECK_EQ(SplitInputs(split, inputs), inputs);
  TESSERA_CHECK_EQ(out.dim(0), x.dim(0));
  TESSERA_CHECK_EQ(out.dim(1), w.rows);
  if (x.dim(0) == 0) {
    return;
  }
  std::vector<T> weights(static_cast<size_t>(inputs));
  for (int64_t o = 0; o < w.rows; ++o) {
    DecodeRow(w, o, 0, inputs, weights.data());
    for (int64_t t = 0; t < x.dim(0); ++t) {
      out.row<T>(t)[o] = SplitDot(x.row<T>(t), weights.data(), inputs, split);
    }
  }
}

template <typename T>
void HeadLinearTransposed(TensorView x, const WeightView& w, int64_t head_rows,
                          int64_t row_begin, TensorView out) {
  const int64_t cols = w.cols;
  TESSERA_CHECK_EQ(out.dim(2), cols);
  std::vector<T> weights(static_cast<size_t>(cols));
  for (int64_t h = 0; h < x.dim(1); ++h) {
    for (int64_t t = 0; t < x.dim(0); ++t) {
      std::fill_n(out.row<T>(t, h), cols, T{0});
    }
    for (int64_t i = 0; i < x.dim(2); ++i) {
      DecodeRow(w, h * head_rows + row_begin + i, 0, cols, weights.data());
      for (int64_t t = 0; t < x.dim(0); ++t) {
        const T factor = x.row<T>(t, h)[i];
        T* sums = out.row<T>(t, h);
        for (int64_t c = 0; c < cols; ++c) {
          sums[c] = MulAdd(factor, weights[static_cast<size_t>(c)], sums[c]);
        }
      }
    }
  }
}

template <typename T>
void HeadLinear(TensorView x, const WeightView& w, int64_t head_rows, int64_t row_begin,
                TensorView out) {
  const int64_t inputs = x.dim(2);
  TESSERA_CHECK_EQ(w.cols, inputs);
  std::vector<T> weights(static_cast<size_t>(inputs));
  for (int64_t h = 0; h < x.dim(1); ++h) {
    for (int64_t o = 0; o < out.dim(2); ++o) {
      DecodeRow(w, h * head_rows + row_begin + o, 0, inputs, weights.data());
      for (int64_t t = 0; t < x.dim(0); ++t) {
        out.row<T>(t, h)[o] = Dot(x.row<T>(t, h), weights.data(), inputs);
      }
    }
  }
}

#define TESSERA_INSTANTIATE(T)                                                           \
  template void Linear<T>(TensorView, const WeightView&, const KSplit&, TensorView);     \
  template void HeadLinearTransposed<T>(TensorView, const WeightView&, int64_t, int64_t, \
                                        TensorView);                                     \
  template void HeadLinear<T>(TensorView, const WeightView&, int64_t, int64_t,           \
                              TensorView);
TESSERA_INSTANTIATE(float)
TESSERA_INSTANTIATE(double)
#undef TESSERA_INSTANTIATE

}  // namespace tessera::kernels::reference
