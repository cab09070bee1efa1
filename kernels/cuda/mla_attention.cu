// Absorbed MLA over a paged cache: a = (q_latent . latent_s + q_rope . k_rope_s) scale,
// o = softmax(a) latent. A block of 4 warps makes a query and head: half warps make the
// scores, into shared memory, then each thread sums its channels over the rows in rising
// order. Shared memory: 4 bytes a row and 512 for the maximum. Bound: memory, two reads
// of the row's 2 (c + r) or fewer bytes; heads do not share them. Exact but for exp.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/primitives/lane_sum.cuh"
#include "kernels/cuda/primitives/paged_rows.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr uint32_t kBlock = 128;
constexpr int64_t kScoresAtOnce = kBlock / kLanes;

struct MlaAttentionKernel {
  static constexpr const char* kName = "MlaAttentionKernel";
  DeviceRows<const float> q_latent;  // [t, head]
  DeviceRows<const float> q_rope;
  DeviceCache cache;
  DevicePages pages;
  bool selects;
  DeviceRows<const int32_t> selected;
  DeviceRows<const int32_t> num_selected;
  float scale;
  DeviceRows<float> out;  // [t, head]

  TESSERA_DEVICE int64_t CacheRow(Thread& thread, int64_t t, int64_t i) const {
    return pages.RowOf(thread, t,
                       selects ? thread.Load(selected.span, selected.Begin(t) + i) : i);
  }

  TESSERA_DEVICE float Score(Thread& thread, int64_t query, int64_t row) const {
    const int64_t lane = thread.lane() % kLanes;
    float latent = 0;
    for (int64_t i = lane; i < q_latent.cols; i += kLanes) {
      latent = fmaf(thread.Load(q_latent.span, q_latent.Begin(query) + i),
                    cache.Value(thread, row, i), latent);
    }
    float rope = 0;
    for (int64_t i = lane; i < q_rope.cols; i += kLanes) {
      rope = fmaf(thread.Load(q_rope.span, q_rope.Begin(query) + i),
                  cache.Value(thread, row, q_latent.cols + i), rope);
    }
    latent = ReduceLanes(thread, latent);
    return (latent + ReduceLanes(thread, rope)) * scale;
  }

  // Turns scores into exponentials; returns nothing but leaves the sum in `total`.
  TESSERA_DEVICE void Exponentiate(Thread& thread, SharedSpan<float> scores,
                                   SharedSpan<float> maxima, SharedSpan<float> total,
                                   int64_t count) const {
    const int64_t me = thread.linear_thread();
    float largest = thread.Load(scores, 0);
    for (int64_t i = me; i < count; i += kBlock) {
      largest = fmaxf(largest, thread.Load(scores, i));
    }
    thread.Store(maxima, me, largest);
    thread.SyncBlock();
    for (int64_t i = 0; i < kBlock; ++i) {
      largest = fmaxf(largest, thread.Load(maxima, i));
    }
    for (int64_t i = me; i < count; i += kBlock) {
      thread.Store(scores, i, expf(thread.Load(scores, i) - largest));
    }
    thread.SyncBlock();
    if (me < kWarpSize) {
      float sum = 0;
      for (int64_t i = me % kLanes; i < count; i += kLanes) {
        sum += thread.Load(scores, i);
      }
      sum = ReduceLanes(thread, sum);
      if (me == 0) {
        thread.Store(total, 0, sum);
      }
    }
    thread.SyncBlock();
  }

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const auto maxima = thread.StaticShared<float, kBlock, 0>();
    const auto total = thread.StaticShared<float, 1, 1>();
    const auto scores = thread.DynamicShared<float>();
    const int64_t query = thread.block_idx().x;
    const int64_t t = query / q_latent.inner;
    const int64_t me = thread.linear_thread();
    const int64_t count =
        selects ? thread.Load(num_selected.span, num_selected.Begin(t))
                : thread.Load(pages.positions.span, pages.positions.Begin(t)) + 1;
    // Both halves of a warp take part in its shuffles, the last one with a row again.
    for (int64_t first = 0; first < count; first += kScoresAtOnce) {
      const int64_t i = first + me / kLanes;
      const int64_t row = CacheRow(thread, t, i < count ? i : count - 1);
      const float score = Score(thread, query, row);
      if (i < count && me % kLanes == 0) {
        thread.Store(scores, i, score);
      }
    }
    thread.SyncBlock();
    if (count > 0) {
      Exponentiate(thread, scores, maxima, total, count);
    }
    for (int64_t c = me; c < out.cols; c += kBlock) {
      float sum = 0;
      for (int64_t i = 0; i < count; ++i) {
        sum = fmaf(thread.Load(scores, i), cache.Value(thread, CacheRow(thread, t, i), c),
                   sum);
      }
      thread.Store(out.span, out.Begin(query) + c,
                   count > 0 ? sum / thread.Load(total, 0) : 0.0F);
    }
  }
};

}  // namespace

void MlaAttention(GpuStream& stream, const MlaAttentionArgs& args) {
  TESSERA_CHECK_EQ(args.rows.width(), args.q_latent.dim(2) + args.q_rope.dim(2));
  MlaAttentionKernel kernel;
  kernel.q_latent = RowsOf<const float>(args.q_latent);
  kernel.q_rope = RowsOf<const float>(args.q_rope);
  kernel.cache = CacheOf(args.rows);
  kernel.pages = PagesOf(args.index);
  kernel.selects = args.selected.rank > 0;
  int64_t rows_max = args.index.block_tables.dim(1) * args.index.block_size;
  if (kernel.selects) {
    kernel.selected = RowsOf<const int32_t>(args.selected);
    kernel.num_selected = ColumnOf<const int32_t>(args.num_selected);
    rows_max = args.selected.dim(1);
  }
  TESSERA_CHECK_LE(rows_max, kMaxAttendedRows);
  kernel.scale = static_cast<float>(args.scale);
  kernel.out = RowsOf<float>(args.out);
  if (kernel.out.rows > 0) {
    Launch(stream,
           {.grid = {static_cast<uint32_t>(kernel.out.rows)},
            .block = {kBlock},
            .shared_bytes = static_cast<uint32_t>(4 * rows_max)},
           kernel);
  }
}

}  // namespace tessera::kernels::cuda
