// Walks the vectors of the last dimension of one or two views of any rank over all
// threads, for the ops that work vector by vector. For the files of kernels/cpu alone.
#ifndef TESSERA_KERNELS_CPU_ROW_PAIRS_H_
#define TESSERA_KERNELS_CPU_ROW_PAIRS_H_

#include <cstdint>

#include "common/check.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/tensor_view.h"

namespace tessera::kernels::cpu {

// A view of rank 1 to 4 as [a, b, c, last]; missing leading dimensions are 1.
struct Rows4 {
  explicit Rows4(const TensorView& x) : data(x.as<float>()), length(x.dim(x.rank - 1)) {
    for (int axis = 0; axis + 1 < x.rank; ++axis) {
      const int at = axis + TensorView::kMaxRank - x.rank;
      dims[at] = x.dim(axis);
      strides[at] = x.stride(axis);
    }
    count = dims[0] * dims[1] * dims[2];
  }
  float* row(int64_t i) const {
    const int64_t c = i % dims[2];
    const int64_t b = i / dims[2] % dims[1];
    const int64_t a = i / dims[2] / dims[1];
    return data + a * strides[0] + b * strides[1] + c * strides[2];
  }

  float* data;
  int64_t length;
  int64_t dims[3] = {1, 1, 1};
  int64_t strides[3] = {0, 0, 0};
  int64_t count = 0;
};

// Goes through the rows of a view in order, without a division per row.
class RowCursor {
 public:
  RowCursor(const Rows4& rows, int64_t first)
      : rows_(rows),
        at_{first / rows.dims[2] / rows.dims[1], first / rows.dims[2] % rows.dims[1],
            first % rows.dims[2]},
        row_(rows.row(first)) {}
  float* row() const { return row_; }
  void Next() {
    if (++at_[2] < rows_.dims[2]) {
      row_ += rows_.strides[2];
      return;
    }
    at_[2] = 0;
    if (++at_[1] == rows_.dims[1]) {
      at_[1] = 0;
      ++at_[0];
    }
    row_ = rows_.data + at_[0] * rows_.strides[0] + at_[1] * rows_.strides[1];
  }

 private:
  const Rows4& rows_;
  int64_t at_[3];
  float* row_;
};

// Calls visit(row of x, row of y, length) for the rows of two views of one shape. `cost`
// is that of an element, in fused multiply-adds.
template <typename Visit>
void ForEachRowPair(CpuContext& context, const TensorView& x, const TensorView& y,
                    int64_t cost, const Visit& visit) {
  const Rows4 from(x);
  const Rows4 to(y);
  TESSERA_CHECK_EQ(from.count, to.count);
  TESSERA_CHECK_EQ(from.length, to.length);
  context.ParallelFor(from.count, from.count * from.length * cost,
                      [&](int64_t begin, int64_t end, int thread) {
                        if (begin == end) {
                          return;
                        }
                        RowCursor in(from, begin);
                        RowCursor out(to, begin);
                        for (int64_t i = begin; i < end; ++i) {
                          visit(in.row(), out.row(), from.length, thread);
                          in.Next();
                          out.Next();
                        }
                      });
}

}  // namespace tessera::kernels::cpu

#endif  // TESSERA_KERNELS_CPU_ROW_PAIRS_H_
