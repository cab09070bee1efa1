// Walks the vectors of the last dimension of one or two views of any rank, for the ops
// that work vector by vector. Included by the files of kernels/reference alone.
#ifndef TESSERA_KERNELS_REFERENCE_ROW_PAIRS_H_
#define TESSERA_KERNELS_REFERENCE_ROW_PAIRS_H_

#include <cstddef>
#include <cstdint>

#include "common/check.h"
#include "kernels/tensor_view.h"

namespace tessera::kernels::reference {

// Views of rank 1 to 4 as [a, b, c, last]: missing leading dimensions are 1.
inline TensorView AsRank4(TensorView x) {
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

}  // namespace tessera::kernels::reference

#endif  // TESSERA_KERNELS_REFERENCE_ROW_PAIRS_H_
