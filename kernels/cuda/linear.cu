// Products with weights in their stored format.
//
// Linear, HeadLinear: out[t, o] = sum_i x[t, i] w[o, i]. A half warp makes an output, a
// block of 8 warps 16 of one row of x; grid.x goes over outputs, grid.y over rows (and
// heads), in strides where there are more than a grid takes. No shared memory, about 40
// registers. Bound: memory traffic, since each row of x reads the weights anew: 1 to 4
// bytes per multiply-add. Exact: the order of sums is the contract's.
// HeadLinearTransposed: a thread makes an output, neighbours read neighbouring columns.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/primitives/device_tensor.cuh"
#include "kernels/cuda/primitives/lane_sum.cuh"
#include "kernels/cuda/primitives/weight_decode.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr uint32_t kBlock = 256;
constexpr int64_t kOutputsPerBlock = kBlock / kLanes;
constexpr int64_t kMaxGridRows = 65535;

// Rows of x and out are [t, head]; head h meets weight rows h * head_rows + row_begin on.
struct LinearKernel {
  static constexpr const char* kName = "LinearKernel";
  DeviceRows<const float> x;
  DeviceWeight w;
  DeviceRows<float> out;
  int64_t head_rows;
  int64_t row_begin;
  // Leaves: begin of each in x's columns, and the end of the last.
  int64_t leaf_begin[KSplit::kLeaves + 1];
  int num_leaves;

  TESSERA_DEVICE float LeafSum(Thread& thread, int64_t x_begin, int64_t weight_row,
                               int leaf) const {
    float sum = 0;
    for (int64_t i = leaf_begin[leaf] + thread.lane() % kLanes; i < leaf_begin[leaf + 1];
         i += kLanes) {
      sum = fmaf(thread.Load(x.span, x_begin + i), LoadWeight(thread, w, weight_row, i),
                 sum);
    }
    return ReduceLanes(thread, sum);
  }

  // The tree over the leaves, each node made as soon as its right half is there: what
  // waits is three left halves, in registers. 1, 2, 4 or 8 leaves, so the last node made
  // is the root.
  TESSERA_DEVICE float SumOfLeaves(Thread& thread, int64_t x_begin,
                                   int64_t weight_row) const {
    static_assert(KSplit::kLeaves == 8);
    float left_leaf = 0;
    float left_pair = 0;
    float left_half = 0;
    float node = 0;
    for (int leaf = 0; leaf < num_leaves; ++leaf) {
      node = LeafSum(thread, x_begin, weight_row, leaf);
      if ((leaf & 1) == 0) {
        left_leaf = node;
        continue;
      }
      node = left_leaf + node;
      if ((leaf & 2) == 0) {
        left_pair = node;
        continue;
      }
      node = left_pair + node;
      if ((leaf & 4) == 0) {
        left_half = node;
        continue;
      }
      node = left_half + node;
    }
    return node;
  }

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t output =
        thread.block_idx().x * kOutputsPerBlock + thread.linear_thread() / kLanes;
    const bool inside = output < out.cols;
    const int64_t column = inside ? output : out.cols - 1;  // shuffles need both halves
    for (int64_t row = thread.block_idx().y; row < x.rows; row += thread.grid_dim().y) {
      const int64_t weight_row = row % x.inner * head_rows + row_begin + column;
      const float sum = SumOfLeaves(thread, x.Begin(row), weight_row);
      if (inside && thread.lane() % kLanes == 0) {
        thread.Store(out.span, out.Begin(row) + output, sum);
      }
    }
  }
};

struct HeadLinearTransposedKernel {
  static constexpr const char* kName = "HeadLinearTransposedKernel";
  DeviceRows<const float> x;
  DeviceWeight w;
  DeviceRows<float> out;
  int64_t head_rows;
  int64_t row_begin;

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t column = GlobalIndex(thread);
    if (column >= out.cols) {
      return;
    }
    for (int64_t row = thread.block_idx().y; row < x.rows; row += thread.grid_dim().y) {
      const int64_t first = row % x.inner * head_rows + row_begin;
      float sum = 0;
      for (int64_t i = 0; i < x.cols; ++i) {
        sum = fmaf(thread.Load(x.span, x.Begin(row) + i),
                   LoadWeight(thread, w, first + i, column), sum);
      }
      thread.Store(out.span, out.Begin(row) + column, sum);
    }
  }
};

void LaunchLinear(GpuStream& stream, const LinearKernel& kernel) {
  if (kernel.x.rows == 0 || kernel.out.cols == 0) {
    return;
  }
  const auto rows = static_cast<uint32_t>(std::min(kernel.x.rows, kMaxGridRows));
  Launch(
      stream,
      {.grid = {BlocksFor(kernel.out.cols, kOutputsPerBlock), rows}, .block = {kBlock}},
      kernel);
}

}  // namespace

void Linear(GpuStream& stream, TensorView x, const WeightView& w, const KSplit& split,
            TensorView out) {
  TESSERA_CHECK_EQ(w.cols, x.dim(1));
  TESSERA_CHECK_EQ(out.dim(1), w.rows);
  LinearKernel kernel = {
      RowsOf<const float>(x), WeightOf(w), RowsOf<float>(out), 0, 0, {}, 1};
  kernel.leaf_begin[1] = x.dim(1);
  if (split.num_leaves > 0) {
    kernel.num_leaves = split.num_leaves;
    const int64_t begin = KSplit::LeafBegin(split.total, split.first_leaf);
    for (int leaf = 0; leaf <= split.num_leaves; ++leaf) {
      kernel.leaf_begin[leaf] =
          KSplit::LeafBegin(split.total, split.first_leaf + leaf) - begin;
    }
    TESSERA_CHECK_EQ(kernel.leaf_begin[split.num_leaves], x.dim(1));
  }
  LaunchLinear(stream, kernel);
}

void HeadLinear(GpuStream& stream, TensorView x, const WeightView& w, int64_t head_rows,
                int64_t row_begin, TensorView out) {
  TESSERA_CHECK_EQ(w.cols, x.dim(2));
  LinearKernel kernel = {RowsOf<const float>(x),
                         WeightOf(w),
                         RowsOf<float>(out),
                         head_rows,
                         row_begin,
                         {},
                         1};
  kernel.leaf_begin[1] = x.dim(2);
  LaunchLinear(stream, kernel);
}

void HeadLinearTransposed(GpuStream& stream, TensorView x, const WeightView& w,
                          int64_t head_rows, int64_t row_begin, TensorView out) {
  TESSERA_CHECK_EQ(out.dim(2), w.cols);
  const HeadLinearTransposedKernel kernel = {RowsOf<const float>(x), WeightOf(w),
                                             RowsOf<float>(out), head_rows, row_begin};
  if (kernel.x.rows == 0) {
    return;
  }
  const auto rows = static_cast<uint32_t>(std::min(kernel.x.rows, kMaxGridRows));
  Launch(stream, {.grid = {BlocksFor(w.cols, kBlock), rows}, .block = {kBlock}}, kernel);
}

}  // namespace tessera::kernels::cuda
