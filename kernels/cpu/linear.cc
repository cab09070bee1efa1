#include <algorithm>

#include "kernels/cpu/cpu_ops.h"

namespace tessera::kernels::cpu {
namespace {

// Threads get whole register blocks of weight rows, so that no block is cut in two.
constexpr int64_t kBlockRows = 4;

// Of a product, in multiply-adds: a byte of weights takes a core as long to read as three
// of them.
int64_t WorkOf(int64_t items, const WeightView& w, int64_t rows) {
  const auto bits = static_cast<int64_t>(model::DTypeBits(w.dtype));
  return (items + 3 * bits / 8) * rows * w.cols;
}

// The leaves of `split` as columns of x; one leaf if the contraction is not cut.
void SetLeaves(const KSplit& split, int64_t inputs, LinearTask& task) {
  if (split.num_leaves == 0) {
    task.num_leaves = 1;
    task.leaf_begin[0] = 0;
    task.leaf_begin[1] = inputs;
    return;
  }
  TESSERA_CHECK_LE(split.first_leaf + split.num_leaves, KSplit::kLeaves);
  TESSERA_CHECK((split.num_leaves & (split.num_leaves - 1)) == 0);
  task.num_leaves = split.num_leaves;
  const int64_t begin = KSplit::LeafBegin(split.total, split.first_leaf);
  task.leaf_begin[0] = 0;
  for (int leaf = 0; leaf < split.num_leaves; ++leaf) {
    task.leaf_begin[leaf + 1] =
        KSplit::LeafBegin(split.total, split.first_leaf + leaf + 1) - begin;
  }
  TESSERA_CHECK_EQ(task.leaf_begin[split.num_leaves], inputs);
}

}  // namespace

void Linear(CpuContext& context, TensorView x, const WeightView& w, const KSplit& split,
            TensorView out) {
  TESSERA_CHECK_EQ(w.cols, x.dim(1));
  TESSERA_CHECK_EQ(out.dim(0), x.dim(0));
  TESSERA_CHECK_EQ(out.dim(1), w.rows);
  if (w.rounded) {
    return RoundedLinear(context, x, w, split, out);
  }
  LinearTask task = {};
  task.weights = ToWeightRows(w);
  TESSERA_CHECK_LE(w.cols, kScratchFloats);
  SetLeaves(split, x.dim(1), task);
  task.x = x.as<float>();
  task.x_stride = x.stride(0);
  task.count = x.dim(0);
  task.out = out.as<float>();
  task.out_stride = out.stride(0);
  if (task.count == 0) {
    return;
  }
  const int64_t blocks = (w.rows + kBlockRows - 1) / kBlockRows;
  context.ParallelForShared(blocks, WorkOf(task.count, w, w.rows),
                            [&](int64_t begin, int64_t end, int thread) {
                              LinearTask part = task;
                              part.row_begin = begin * kBlockRows;
                              part.row_end = std::min(end * kBlockRows, w.rows);
                              part.scratch = context.scratch(thread).panel;
                              context.simd().linear(part);
                            });
}

void HeadLinear(CpuContext& context, TensorView x, const WeightView& w, int64_t head_rows,
                int64_t row_begin, TensorView out) {
  const int64_t heads = x.dim(1);
  const int64_t rows = out.dim(2);
  TESSERA_CHECK_EQ(w.cols, x.dim(2));
  if (w.rounded) {
    return RoundedHeadLinear(context, x, w, head_rows, row_begin, out);
  }
  TESSERA_CHECK_LE(w.cols, kScratchFloats);
  LinearTask task = {};
  task.num_leaves = 1;
  task.leaf_begin[1] = w.cols;
  task.x_stride = x.stride(0);
  task.count = x.dim(0);
  task.out_stride = out.stride(0);
  if (task.count == 0) {
    return;
  }
  // Heads are cut too: a rank may hold one group of heads with a thousand rows.
  const int64_t blocks = (rows + kBlockRows - 1) / kBlockRows;
  context.ParallelFor(heads * blocks, WorkOf(task.count, w, heads * rows),
                      [&](int64_t begin, int64_t end, int thread) {
                        LinearTask part = task;
                        part.scratch = context.scratch(thread).panel;
                        while (begin < end) {
                          const int64_t h = begin / blocks;
                          const int64_t stop = std::min(end, (h + 1) * blocks);
                          part.weights =
                              ToWeightRows(w.RowSlice(h * head_rows + row_begin, rows));
                          part.row_begin = (begin - h * blocks) * kBlockRows;
                          part.row_end = std::min((stop - h * blocks) * kBlockRows, rows);
                          part.x = x.row<float>(0, h);
                          part.out = out.row<float>(0, h);
                          context.simd().linear(part);
                          begin = stop;
                        }
                      });
}

void HeadLinearTransposed(CpuContext& context, TensorView x, const WeightView& w,
                          int64_t head_rows, int64_t row_begin, TensorView out) {
  const int64_t heads = x.dim(1);
  const int64_t rows = x.dim(2);
  TESSERA_CHECK_EQ(out.dim(2), w.cols);
  TESSERA_CHECK(!w.rounded);
  TESSERA_CHECK_LE(rows * 16, kScratchFloats);
  TransposedTask task = {};
  task.rows = rows;
  task.col_end = w.cols;
  task.x_stride = x.stride(0);
  task.count = x.dim(0);
  task.out_stride = out.stride(0);
  task.scratch_floats = kScratchFloats;
  if (task.count == 0 || rows == 0) {
    return;
  }
  context.ParallelFor(heads, WorkOf(task.count, w, heads * rows),
                      [&](int64_t begin, int64_t end, int thread) {
                        TransposedTask part = task;
                        part.scratch = context.scratch(thread).panel;
                        for (int64_t h = begin; h < end; ++h) {
                          part.weights =
                              ToWeightRows(w.RowSlice(h * head_rows + row_begin, rows));
                          part.x = x.row<float>(0, h);
                          part.out = out.row<float>(0, h);
                          context.simd().linear_transposed(part);
                        }
                      });
}

}  // namespace tessera::kernels::cpu
