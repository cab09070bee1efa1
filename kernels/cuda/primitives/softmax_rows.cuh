// Attention of one query and head by a block of 4 warps, over any number of rows with
// bounded shared memory: half warps make the scores of a pass of rows, then each thread
// sums its channels over them in rising order. Where one pass does not hold all rows, a
// first round finds the maximum alone, and scores are made again.
//
// A Source is the rows as the block sees them:
//   int32_t Row(Thread&, int64_t i)                   handle of row i
//   float Score(Thread&, int32_t row)                 by a half warp, in its lane 0
//   float Value(Thread&, int32_t row, int64_t c)
#ifndef TESSERA_KERNELS_CUDA_PRIMITIVES_SOFTMAX_ROWS_CUH_
#define TESSERA_KERNELS_CUDA_PRIMITIVES_SOFTMAX_ROWS_CUH_

#include <cmath>
#include <cstdint>

#include "kernels/cuda/primitives/device_tensor.cuh"
#include "kernels/cuda/primitives/lane_sum.cuh"

namespace tessera::kernels::cuda {

inline constexpr uint32_t kSoftmaxThreads = 128;
// A multiple of the lanes, so that a row keeps its lane from pass to pass.
inline constexpr int64_t kSoftmaxRowsPerPass = 4096;
inline constexpr uint32_t kSoftmaxSharedBytes = 8 * kSoftmaxRowsPerPass;

// One row of values, where a query and head's result goes.
struct SoftmaxOut {
  GlobalSpan<float> span;
  int64_t begin = 0;
  int64_t cols = 0;
};

template <typename Source>
class SoftmaxRows {
 public:
  TESSERA_DEVICE SoftmaxRows(Thread& thread, const Source& source, int64_t count)
      : source_(source),
        count_(count),
        scores_{thread.DynamicShared<float>().data, kSoftmaxRowsPerPass},
        rows_{thread.DynamicShared<int32_t>(4 * kSoftmaxRowsPerPass).data,
              kSoftmaxRowsPerPass} {}

  // sum_i e^(a_i - m) row_i / (sum_i e^(a_i - m) + e^(sink - m)), m the largest a; zeros
  // without rows. By the whole block. A sink of minus infinity adds nothing.
  TESSERA_DEVICE void Attend(Thread& thread, float sink, const SoftmaxOut& out) {
    const int64_t me = thread.linear_thread();
    const float largest = count_ > 0 ? FindLargest(thread) : 0.0F;
    for (int64_t c = me; c < out.cols; c += kSoftmaxThreads) {
      thread.Store(out.span, out.begin + c, 0.0F);
    }
    float lane_total = 0;  // of the lanes of the first half warp
    for (int64_t first = 0; first < count_; first += kSoftmaxRowsPerPass) {
      const int64_t here = RowsFrom(first);
      if (count_ > kSoftmaxRowsPerPass) {
        MakeScores(thread, first);
      }
      for (int64_t i = me; i < here; i += kSoftmaxThreads) {
        thread.Store(scores_, i, expf(thread.Load(scores_, i) - largest));
      }
      thread.SyncBlock();
      for (int64_t i = me; me < kLanes && i < here; i += kLanes) {
        lane_total += thread.Load(scores_, i);
      }
      AddRows(thread, here, out);
      thread.SyncBlock();
    }
    if (count_ > 0) {
      Divide(thread, lane_total, expf(sink - largest), out);
    }
  }

 private:
  TESSERA_DEVICE int64_t RowsFrom(int64_t first) const {
    const int64_t left = count_ - first;
    return left < kSoftmaxRowsPerPass ? left : kSoftmaxRowsPerPass;
  }

  // Of the rows of one pass, with their handles.
  TESSERA_DEVICE void MakeScores(Thread& thread, int64_t first) const {
    const int64_t here = RowsFrom(first);
    const int64_t me = thread.linear_thread();
    // Both halves of a warp take part in its shuffles, the last one with a row again.
    for (int64_t at = 0; at < here; at += kSoftmaxThreads / kLanes) {
      const int64_t i = at + me / kLanes;
      const int32_t row = source_.Row(thread, first + (i < here ? i : here - 1));
      const float score = source_.Score(thread, row);
      if (i < here && me % kLanes == 0) {
        thread.Store(scores_, i, score);
        thread.Store(rows_, i, row);
      }
    }
    thread.SyncBlock();
  }

  // Leaves the scores of the last pass behind.
  TESSERA_DEVICE float FindLargest(Thread& thread) const {
    const auto maxima = thread.StaticShared<float, kSoftmaxThreads, 0>();
    const int64_t me = thread.linear_thread();
    float largest = -INFINITY;
    for (int64_t first = 0; first < count_; first += kSoftmaxRowsPerPass) {
      MakeScores(thread, first);
      for (int64_t i = me; i < RowsFrom(first); i += kSoftmaxThreads) {
        largest = fmaxf(largest, thread.Load(scores_, i));
      }
      thread.SyncBlock();
    }
    thread.Store(maxima, me, largest);
    thread.SyncBlock();
    for (int64_t i = 0; i < kSoftmaxThreads; ++i) {
      largest = fmaxf(largest, thread.Load(maxima, i));
    }
    return largest;
  }

  TESSERA_DEVICE void AddRows(Thread& thread, int64_t here, const SoftmaxOut& out) const {
    for (int64_t c = thread.linear_thread(); c < out.cols; c += kSoftmaxThreads) {
      float sum = thread.Load(out.span, out.begin + c);
      for (int64_t i = 0; i < here; ++i) {
        sum = fmaf(thread.Load(scores_, i),
                   source_.Value(thread, thread.Load(rows_, i), c), sum);
      }
      thread.Store(out.span, out.begin + c, sum);
    }
  }

  TESSERA_DEVICE void Divide(Thread& thread, float lane_total, float sink,
                             const SoftmaxOut& out) const {
    const auto total = thread.StaticShared<float, 1, 1>();
    const int64_t me = thread.linear_thread();
    if (me < kWarpSize) {
      const float sum = ReduceLanes(thread, lane_total);
      if (me == 0) {
        thread.Store(total, 0, sum + sink);
      }
    }
    thread.SyncBlock();
    for (int64_t c = me; c < out.cols; c += kSoftmaxThreads) {
      thread.Store(out.span, out.begin + c,
                   thread.Load(out.span, out.begin + c) / thread.Load(total, 0));
    }
  }

  const Source& source_;
  const int64_t count_;
  const SharedSpan<float> scores_;
  const SharedSpan<int32_t> rows_;
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRIMITIVES_SOFTMAX_ROWS_CUH_
