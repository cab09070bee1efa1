#include <algorithm>

#include "kernels/cpu/cpu_ops.h"

namespace tessera::kernels::cpu {
namespace {

// Merges a pass into what the passes before it gave: both are normalised sums with the
// maximum and the total of their exponentials.
void MergePass(const SimdOps& simd, const float* pass, float pass_maximum,
               float pass_total, int64_t size, float* out, float* maximum, float* total) {
  const float larger = pass_maximum > *maximum ? pass_maximum : *maximum;
  float factors[2] = {*maximum - larger, pass_maximum - larger};
  simd.exp(factors, factors, 2);
  const float before = *total * factors[0];
  const float added = pass_total * factors[1];
  const float sum = before + added;
  const float keep = before / sum;
  const float add = added / sum;
  for (int64_t i = 0; i < size; ++i) {
    out[i] = out[i] * keep + pass[i] * add;
  }
  *maximum = larger;
  *total = sum;
}

// The rows of a query: `window` of them, then `entries`.
struct SharedKvRows {
  const SharedKvAttentionArgs& args;
  int64_t query;
  const int32_t* window_blocks;
  const int32_t* entry_blocks;
  const int32_t* selected;  // null: entry i is the i-th
  int64_t window_begin;
  int64_t window = 0;
  int64_t entries = 0;

  SharedKvRows(const SharedKvAttentionArgs& arguments, int64_t t)
      : args(arguments),
        query(t),
        window_blocks(BlocksOfRow(args.window, t)),
        entry_blocks(nullptr),
        selected(nullptr),
        window_begin(*args.window_begin.row<int32_t>(t)),
        window(*args.window_end.row<int32_t>(t) - window_begin) {
    TESSERA_CHECK(window_begin >= 0 && window >= 0);
    if (!args.entries.is_present()) {
      return;
    }
    entry_blocks = BlocksOfRow(args.entry_index, t);
    entries = VisibleEntries(*args.entry_index.positions.row<int32_t>(t), args.ratio);
    if (args.selected.rank > 0) {
      selected = args.selected.row<int32_t>(t);
      entries = *args.num_selected.row<int32_t>(t);
      TESSERA_CHECK(entries >= 0 && entries <= args.selected.dim(1));
    }
  }
  int64_t count() const { return window + entries; }

  // Makes a thread's pointers name rows [first, first + n); packed ones are unpacked.
  void Find(const SimdOps& simd, int64_t first, int64_t n,
            const CpuContext::ThreadScratch& scratch) const {
    const float** rows = scratch.row_pointers();
    float* unpacked = scratch.unpacked;
    for (int64_t i = first; i < first + n; ++i, unpacked += args.q.dim(2)) {
      if (i < window) {
        *rows++ = ReadPagedRow(simd, args.window_rows, window_blocks,
                               args.window.block_size, window_begin + i, unpacked);
      } else {
        const int64_t entry = selected == nullptr ? i - window : selected[i - window];
        *rows++ = ReadPagedRow(simd, args.entries, entry_blocks,
                               args.entry_index.block_size, entry, unpacked);
      }
    }
  }
};

// One query and a few heads. `task` has all but the rows; `found`: the query whose rows,
// all of them, this thread's pointers name.
void AttendToSharedKv(CpuContext& context, const SharedKvRows& rows, SharedKvTask task,
                      const float* sinks, int thread, int64_t* found) {
  const CpuContext::ThreadScratch& scratch = context.scratch(thread);
  float* const out = task.out;
  const int64_t out_stride = task.out_stride;
  float maxima[kSharedKvHeads] = {};
  float totals[kSharedKvHeads] = {};
  float pass_maxima[kSharedKvHeads];
  float pass_totals[kSharedKvHeads];
  task.rows = scratch.row_pointers();
  task.maxima = maxima;
  task.totals = totals;
  for (int64_t first = 0; first < rows.count(); first += kSharedKvRowsPerPass) {
    task.count = std::min(kSharedKvRowsPerPass, rows.count() - first);
    if (*found != rows.query || rows.count() > kSharedKvRowsPerPass) {
      rows.Find(context.simd(), first, task.count, scratch);
      *found = rows.query;
    }
    context.simd().shared_kv_attention(task);
    if (first > 0) {
      for (int64_t h = 0; h < task.heads; ++h) {
        MergePass(context.simd(), scratch.rows + h * task.dim, pass_maxima[h],
                  pass_totals[h], task.dim, out + h * out_stride, &maxima[h], &totals[h]);
      }
    }
    task.out = scratch.rows;
    task.out_stride = task.dim;
    task.maxima = pass_maxima;
    task.totals = pass_totals;
  }
  for (int64_t h = 0; h < task.heads; ++h) {
    float* head = out + h * out_stride;
    if (rows.count() == 0) {
      std::fill_n(head, task.dim, 0.0F);
      continue;
    }
    // The sink joins the denominator alone.
    float sink = sinks[h] - maxima[h];
    context.simd().exp(&sink, &sink, 1);
    const float factor = totals[h] / (totals[h] + sink);
    for (int64_t i = 0; i < task.dim; ++i) {
      head[i] *= factor;
    }
  }
}

// As above.
int64_t CountRows(const SharedKvAttentionArgs& args) {
  int64_t rows = 0;
  for (int64_t t = 0; t < args.q.dim(0); ++t) {
    rows += SharedKvRows(args, t).count();
  }
  return rows;
}

}  // namespace

void SharedKvAttention(CpuContext& context, const SharedKvAttentionArgs& args) {
  const int64_t queries = args.q.dim(0);
  const int64_t heads = args.q.dim(1);
  SharedKvTask common = {};
  common.q_stride = args.q.stride(1);
  common.dim = args.q.dim(2);
  common.scale = static_cast<float>(args.scale);
  common.out_stride = args.out.stride(1);
  TESSERA_CHECK_LE(kSharedKvHeads * (common.dim + kSharedKvRowsPerPass + kRowPadding),
                   kScratchFloats);
  TESSERA_CHECK_EQ(args.window_rows.width(), common.dim);
  TESSERA_CHECK_LE(kSharedKvRowsPerPass * common.dim, kUnpackedFloats);
  const bool wide = queries * heads >= kSharedKvHeads * context.num_threads();
  const int64_t tile = wide ? kSharedKvHeads : kNarrowSharedKvHeads;
  const int64_t tiles = (heads + tile - 1) / tile;
  const int64_t work = CountRows(args) * heads * 2 * common.dim;
  context.ParallelFor(queries * tiles, work, [&](int64_t begin, int64_t end, int thread) {
    SharedKvTask task = common;
    task.scratch = context.scratch(thread).panel;
    int64_t found = -1;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t t = item / tiles;
      const int64_t head = item % tiles * tile;
      task.heads = std::min(tile, heads - head);
      task.q = args.q.row<float>(t, head);
      task.out = args.out.row<float>(t, head);
      AttendToSharedKv(context, SharedKvRows(args, t), task, args.sinks + head, thread,
                       &found);
    }
  });
}

}  // namespace tessera::kernels::cpu
