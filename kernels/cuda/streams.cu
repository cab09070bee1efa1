// Residual streams, and rows that are gathered or combined. A thread makes a value, in
// strides of the grid; all are bound by memory, 4 to 4 (2 M + 2) bytes a value. Sums run
// over streams or slots in rising order by fused multiply-add, as the contract says: the
// reference's bits.
#include <cmath>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/primitives/device_tensor.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr uint32_t kBlock = 256;
// Streams of a model at most: HyperExpand keeps all of a channel in registers.
constexpr int64_t kMaxStreams = 8;

struct ExpandStreamsKernel {
  static constexpr const char* kName = "ExpandStreamsKernel";
  DeviceRows<const float> x;
  DeviceRows<float> out;  // [t, stream]

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t stride = int64_t{thread.grid_dim().x} * kBlock;
    for (int64_t i = GlobalIndex(thread); i < out.rows * out.cols; i += stride) {
      const int64_t row = i / out.cols;
      const int64_t col = i % out.cols;
      thread.Store(out.span, out.Begin(row) + col,
                   thread.Load(x.span, x.Begin(row / out.inner) + col));
    }
  }
};

struct HyperCollapseKernel {
  static constexpr const char* kName = "HyperCollapseKernel";
  DeviceRows<const float> streams;  // [t, stream]
  DeviceRows<const float> pre;
  DeviceRows<float> out;

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t stride = int64_t{thread.grid_dim().x} * kBlock;
    for (int64_t i = GlobalIndex(thread); i < out.rows * out.cols; i += stride) {
      const int64_t row = i / out.cols;
      const int64_t col = i % out.cols;
      float sum = 0;
      for (int64_t j = 0; j < pre.cols; ++j) {
        sum =
            fmaf(thread.Load(pre.span, pre.Begin(row) + j),
                 thread.Load(streams.span, streams.Begin(row * pre.cols + j) + col), sum);
      }
      thread.Store(out.span, out.Begin(row) + col, sum);
    }
  }
};

// In place: a thread holds a channel of all streams of a token, and nobody else reads it.
struct HyperExpandKernel {
  static constexpr const char* kName = "HyperExpandKernel";
  DeviceRows<const float> y;
  DeviceRows<const float> post;
  DeviceRows<const float> mix;  // [t, from], columns to
  DeviceRows<float> streams;    // [t, stream]

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t m = post.cols;
    const int64_t stride = int64_t{thread.grid_dim().x} * kBlock;
    for (int64_t i = GlobalIndex(thread); i < y.rows * y.cols; i += stride) {
      const int64_t row = i / y.cols;
      const int64_t col = i % y.cols;
      float old[kMaxStreams];
      // Loops over j have a constant end, so that `old` stays in registers.
      for (int64_t j = 0; j < kMaxStreams; ++j) {
        old[j] =
            j < m ? thread.Load(streams.span, streams.Begin(row * m + j) + col) : 0.0F;
      }
      const float value = thread.Load(y.span, y.Begin(row) + col);
      for (int64_t k = 0; k < m; ++k) {
        float sum = thread.Load(post.span, post.Begin(row) + k) * value;
        for (int64_t j = 0; j < kMaxStreams; ++j) {
          if (j < m) {
            sum = fmaf(thread.Load(mix.span, mix.Begin(row * m + j) + k), old[j], sum);
          }
        }
        thread.Store(streams.span, streams.Begin(row * m + k) + col, sum);
      }
    }
  }
};

struct GatherRowsKernel {
  static constexpr const char* kName = "GatherRowsKernel";
  DeviceRows<const float> x;
  DeviceRows<const int32_t> rows;  // one column
  DeviceRows<float> out;

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t stride = int64_t{thread.grid_dim().x} * kBlock;
    for (int64_t i = GlobalIndex(thread); i < out.rows * out.cols; i += stride) {
      const int64_t row = i / out.cols;
      const int64_t col = i % out.cols;
      // Of x [n, M, d] a row of the op is M rows here.
      const int64_t from = thread.Load(rows.span, rows.Begin(row / out.inner));
      const float value =
          from < 0
              ? 0.0F
              : thread.Load(x.span, x.Begin(from * out.inner + row % out.inner) + col);
      thread.Store(out.span, out.Begin(row) + col, value);
    }
  }
};

struct CombineExpertsKernel {
  static constexpr const char* kName = "CombineExpertsKernel";
  DeviceRows<const float> y;
  DeviceRows<const int32_t> row_of_slot;
  DeviceRows<const float> weights;
  DeviceRows<float> out;

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t stride = int64_t{thread.grid_dim().x} * kBlock;
    for (int64_t i = GlobalIndex(thread); i < out.rows * out.cols; i += stride) {
      const int64_t row = i / out.cols;
      const int64_t col = i % out.cols;
      float sum = 0;
      for (int64_t slot = 0; slot < weights.cols; ++slot) {
        const int64_t from = thread.Load(row_of_slot.span, row_of_slot.Begin(row) + slot);
        if (from >= 0) {
          sum = fmaf(thread.Load(weights.span, weights.Begin(row) + slot),
                     thread.Load(y.span, y.Begin(from) + col), sum);
        }
      }
      thread.Store(out.span, out.Begin(row) + col, sum);
    }
  }
};

template <typename Kernel>
void LaunchEach(GpuStream& stream, int64_t count, const Kernel& kernel) {
  if (count > 0) {
    Launch(stream, EachValueConfig(count, kBlock), kernel);
  }
}

}  // namespace

void ExpandStreams(GpuStream& stream, TensorView x, TensorView out) {
  TESSERA_CHECK_EQ(x.dim(1), out.dim(2));
  LaunchEach(stream, out.num_elements(),
             ExpandStreamsKernel{RowsOf<const float>(x), RowsOf<float>(out)});
}

void HyperCollapse(GpuStream& stream, TensorView streams, TensorView pre,
                   TensorView out) {
  TESSERA_CHECK_EQ(streams.dim(1), pre.dim(1));
  TESSERA_CHECK_EQ(streams.dim(2), out.dim(1));
  LaunchEach(stream, out.num_elements(),
             HyperCollapseKernel{RowsOf<const float>(streams), RowsOf<const float>(pre),
                                 RowsOf<float>(out)});
}

void HyperExpand(GpuStream& stream, TensorView y, TensorView post, TensorView mix,
                 TensorView streams) {
  TESSERA_CHECK_EQ(streams.dim(1), post.dim(1));
  TESSERA_CHECK_LE(post.dim(1), kMaxStreams);
  LaunchEach(stream, y.num_elements(),
             HyperExpandKernel{RowsOf<const float>(y), RowsOf<const float>(post),
                               RowsOf<const float>(mix), RowsOf<float>(streams)});
}

void GatherRows(GpuStream& stream, TensorView x, TensorView rows, TensorView out) {
  TESSERA_CHECK_EQ(x.dim(x.rank - 1), out.dim(out.rank - 1));
  LaunchEach(stream, out.num_elements(),
             GatherRowsKernel{RowsOf<const float>(x), ColumnOf<const int32_t>(rows),
                              RowsOf<float>(out)});
}

void CombineExperts(GpuStream& stream, TensorView y, TensorView row_of_slot,
                    TensorView weights, TensorView out) {
  TESSERA_CHECK_EQ(row_of_slot.dim(1), weights.dim(1));
  LaunchEach(
      stream, out.num_elements(),
      CombineExpertsKernel{RowsOf<const float>(y), RowsOf<const int32_t>(row_of_slot),
                           RowsOf<const float>(weights), RowsOf<float>(out)});
}

}  // namespace tessera::kernels::cuda
