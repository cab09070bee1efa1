// Absorbed MLA and attention over shared key-value rows, both over paged caches of any
// row format. A block makes a query and head (softmax_rows.cuh); any number of rows.
// Shared memory: 8 bytes a row of a pass and 516 bytes. Bound: memory, two reads of each
// row, three where they take several passes; heads do not share them. Exact but for exp.
#include <cmath>
#include <limits>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/primitives/paged_rows.cuh"
#include "kernels/cuda/primitives/softmax_rows.cuh"

namespace tessera::kernels::cuda {
namespace {

// sum of q[begin + i] row[from + i] in 16 lanes, by a half warp; in its lane 0.
TESSERA_DEVICE inline float DotRow(Thread& thread, const DeviceRows<const float>& q,
                                   int64_t query, const DeviceCache& cache, int64_t row,
                                   int64_t from) {
  float sum = 0;
  for (int64_t i = thread.lane() % kLanes; i < q.cols; i += kLanes) {
    sum = fmaf(thread.Load(q.span, q.Begin(query) + i),
               cache.Value(thread, row, from + i), sum);
  }
  return ReduceLanes(thread, sum);
}

// Positions or entries that a query chose, or all that it sees.
struct Selection {
  bool selects = false;
  DeviceRows<const int32_t> selected;
  DeviceRows<const int32_t> num_selected;

  TESSERA_DEVICE int64_t Count(Thread& thread, int64_t t, int64_t visible) const {
    return selects ? thread.Load(num_selected.span, num_selected.Begin(t)) : visible;
  }
  TESSERA_DEVICE int64_t At(Thread& thread, int64_t t, int64_t i) const {
    return selects ? thread.Load(selected.span, selected.Begin(t) + i) : i;
  }
};

Selection SelectionOf(const TensorView& selected, const TensorView& num_selected) {
  Selection out;
  out.selects = selected.rank > 0;
  if (out.selects) {
    out.selected = RowsOf<const int32_t>(selected);
    out.num_selected = ColumnOf<const int32_t>(num_selected);
  }
  return out;
}

// Handles of rows are int32, and negative for those of a second cache.
void CheckHandles(const CacheView& cache) {
  TESSERA_CHECK_LE(cache.num_blocks() * cache.block_size(),
                   int64_t{std::numeric_limits<int32_t>::max()});
}

struct MlaAttentionKernel {
  static constexpr const char* kName = "MlaAttentionKernel";
  DeviceRows<const float> q_latent;  // [t, head]
  DeviceRows<const float> q_rope;
  DeviceCache cache;
  DevicePages pages;
  Selection selection;
  float scale;
  DeviceRows<float> out;  // [t, head]

  struct Source {
    const MlaAttentionKernel& kernel;
    int64_t query;
    int64_t t;

    TESSERA_DEVICE int32_t Row(Thread& thread, int64_t i) const {
      return static_cast<int32_t>(
          kernel.pages.RowOf(thread, t, kernel.selection.At(thread, t, i)));
    }
    TESSERA_DEVICE float Score(Thread& thread, int32_t row) const {
      const float latent = DotRow(thread, kernel.q_latent, query, kernel.cache, row, 0);
      return (latent + DotRow(thread, kernel.q_rope, query, kernel.cache, row,
                              kernel.q_latent.cols)) *
             kernel.scale;
    }
    TESSERA_DEVICE float Value(Thread& thread, int32_t row, int64_t c) const {
      return kernel.cache.Value(thread, row, c);
    }
  };

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t query = thread.block_idx().x;
    const Source source = {*this, query, query / q_latent.inner};
    const int64_t visible =
        thread.Load(pages.positions.span, pages.positions.Begin(source.t)) + 1;
    SoftmaxRows<Source> rows(thread, source, selection.Count(thread, source.t, visible));
    rows.Attend(thread, -INFINITY, {out.span, out.Begin(query), out.cols});
  }
};

struct SharedKvAttentionKernel {
  static constexpr const char* kName = "SharedKvAttentionKernel";
  DeviceRows<const float> q;  // [t, head]
  DeviceCache window_rows;
  DevicePages window;
  DeviceRows<const int32_t> window_begin;
  DeviceRows<const int32_t> window_end;
  bool has_entries;
  DeviceCache entries;
  DevicePages entry_pages;
  int64_t ratio;
  Selection selection;
  GlobalSpan<const float> sinks;
  float scale;
  DeviceRows<float> out;  // [t, head]

  // Rows of the window are handles from 0 on, those of entries from -1 down.
  struct Source {
    const SharedKvAttentionKernel& kernel;
    int64_t query;
    int64_t t;
    int64_t begin;  // of the window
    int64_t in_window;

    TESSERA_DEVICE int32_t Row(Thread& thread, int64_t i) const {
      if (i < in_window) {
        return static_cast<int32_t>(kernel.window.RowOf(thread, t, begin + i));
      }
      const int64_t entry = kernel.selection.At(thread, t, i - in_window);
      return -1 - static_cast<int32_t>(kernel.entry_pages.RowOf(thread, t, entry));
    }
    TESSERA_DEVICE float Score(Thread& thread, int32_t row) const {
      return DotRow(thread, kernel.q, query,
                    row < 0 ? kernel.entries : kernel.window_rows,
                    row < 0 ? -1 - row : row, 0) *
             kernel.scale;
    }
    TESSERA_DEVICE float Value(Thread& thread, int32_t row, int64_t c) const {
      return row < 0 ? kernel.entries.Value(thread, -1 - row, c)
                     : kernel.window_rows.Value(thread, row, c);
    }
  };

  TESSERA_DEVICE int64_t NumEntries(Thread& thread, int64_t t) const {
    if (!has_entries) {
      return 0;
    }
    const int64_t position =
        thread.Load(entry_pages.positions.span, entry_pages.positions.Begin(t));
    return selection.Count(thread, t, (position + 1) / ratio);
  }

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t query = thread.block_idx().x;
    const int64_t t = query / q.inner;
    const int64_t begin = thread.Load(window_begin.span, window_begin.Begin(t));
    const int64_t end = thread.Load(window_end.span, window_end.Begin(t));
    const int64_t in_window = end > begin ? end - begin : 0;
    const Source source = {*this, query, t, begin, in_window};
    SoftmaxRows<Source> rows(thread, source, in_window + NumEntries(thread, t));
    rows.Attend(thread, thread.Load(sinks, query % q.inner),
                {out.span, out.Begin(query), out.cols});
  }
};

LaunchConfig PerQueryAndHead(int64_t rows) {
  return {.grid = {static_cast<uint32_t>(rows)},
          .block = {kSoftmaxThreads},
          .shared_bytes = kSoftmaxSharedBytes};
}

}  // namespace

void MlaAttention(GpuStream& stream, const MlaAttentionArgs& args) {
  TESSERA_CHECK_EQ(args.rows.width(), args.q_latent.dim(2) + args.q_rope.dim(2));
  CheckHandles(args.rows);
  MlaAttentionKernel kernel;
  kernel.q_latent = RowsOf<const float>(args.q_latent);
  kernel.q_rope = RowsOf<const float>(args.q_rope);
  kernel.cache = CacheOf(args.rows);
  kernel.pages = PagesOf(args.index);
  kernel.selection = SelectionOf(args.selected, args.num_selected);
  kernel.scale = static_cast<float>(args.scale);
  kernel.out = RowsOf<float>(args.out);
  if (kernel.out.rows > 0) {
    Launch(stream, PerQueryAndHead(kernel.out.rows), kernel);
  }
}

void SharedKvAttention(GpuStream& stream, const SharedKvAttentionArgs& args) {
  TESSERA_CHECK_EQ(args.window_rows.width(), args.q.dim(2));
  CheckHandles(args.window_rows);
  SharedKvAttentionKernel kernel;
  kernel.q = RowsOf<const float>(args.q);
  kernel.window_rows = CacheOf(args.window_rows);
  kernel.window = PagesOf(args.window);
  kernel.window_begin = ColumnOf<const int32_t>(args.window_begin);
  kernel.window_end = ColumnOf<const int32_t>(args.window_end);
  kernel.has_entries = args.entries.is_present();
  kernel.ratio = args.ratio;
  if (kernel.has_entries) {
    TESSERA_CHECK_EQ(args.entries.width(), args.q.dim(2));
    CheckHandles(args.entries);
    kernel.entries = CacheOf(args.entries);
    kernel.entry_pages = PagesOf(args.entry_index);
    kernel.selection = SelectionOf(args.selected, args.num_selected);
  }
  kernel.sinks = {args.sinks, args.q.dim(1)};
  kernel.scale = static_cast<float>(args.scale);
  kernel.out = RowsOf<float>(args.out);
  if (kernel.out.rows > 0) {
    Launch(stream, PerQueryAndHead(kernel.out.rows), kernel);
  }
}

}  // namespace tessera::kernels::cuda
