#include <algorithm>

#include "kernels/cpu/cpu_ops.h"

namespace tessera::kernels::cpu {
namespace {

// What a cached row meets while it is in registers.
constexpr int64_t kHeadsPerItem = 4;

// Finds `count` of the rows that query t attends to, from the first-th on, and unpacks
// them where they are packed: this thread's offsets name them.
void FindRows(CpuContext& context, const MlaAttentionArgs& args, int64_t t, int64_t first,
              int64_t count, int thread) {
  const CpuContext::ThreadScratch& scratch = context.scratch(thread);
  const int32_t* blocks = BlocksOfRow(args.index, t);
  const int32_t* selected =
      args.selected.rank > 0 ? args.selected.row<int32_t>(t) : nullptr;
  const auto block_size = static_cast<int32_t>(args.index.block_size);
  const int64_t width = args.rows.width();
  for (int64_t i = 0; i < count; ++i) {
    const int32_t position =
        selected != nullptr ? selected[first + i] : static_cast<int32_t>(first + i);
    if (args.rows.format.is_packed()) {
      scratch.offsets[i] = i * width;
      ReadPagedRow(context.simd(), args.rows, blocks, block_size, position,
                   scratch.unpacked + i * width);
    } else {
      scratch.offsets[i] = blocks[position / block_size] * args.rows.rows.stride(0) +
                           position % block_size * args.rows.rows.stride(1);
    }
  }
}

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

// One query and a few heads over all that the query sees, pass after pass. `task` has
// all but the count; `found`: the query whose rows, all of them, this thread's offsets
// name.
void AttendToAll(CpuContext& context, const MlaAttentionArgs& args, int64_t t,
                 AttentionTask task, int thread, int64_t* found) {
  const CpuContext::ThreadScratch& scratch = context.scratch(thread);
  const int64_t visible = *args.index.positions.row<int32_t>(t) + 1;
  float* const out = task.out;
  const int64_t out_stride = task.out_stride;
  float maxima[kMostHeadsPerItem];
  float totals[kMostHeadsPerItem];
  float pass_maxima[kMostHeadsPerItem];
  float pass_totals[kMostHeadsPerItem];
  for (int64_t first = 0; first < visible; first += kRowsPerPass) {
    task.count = std::min(kRowsPerPass, visible - first);
    if (*found != t || visible > kRowsPerPass) {
      FindRows(context, args, t, first, task.count, thread);
      *found = t;
    }
    if (first == 0) {
      task.maxima = maxima;
      task.totals = totals;
      context.simd().attention(task);
      continue;
    }
    task.out = scratch.rows;
    task.out_stride = task.latent_dim;
    task.maxima = pass_maxima;
    task.totals = pass_totals;
    context.simd().attention(task);
    for (int64_t h = 0; h < task.heads; ++h) {
      MergePass(context.simd(), scratch.rows + h * task.latent_dim, pass_maxima[h],
                pass_totals[h], task.latent_dim, out + h * out_stride, &maxima[h],
                &totals[h]);
    }
  }
}

// One query and a few heads over the selected rows; as above.
void AttendToSelected(CpuContext& context, const MlaAttentionArgs& args, int64_t t,
                      AttentionTask task, int thread, int64_t* found) {
  task.count = *args.num_selected.row<int32_t>(t);
  TESSERA_CHECK(task.count >= 0 && task.count <= args.selected.dim(1));
  if (task.count == 0) {  // a padding row that sees nothing
    for (int64_t h = 0; h < task.heads; ++h) {
      std::fill_n(task.out + h * task.out_stride, task.latent_dim, 0.0F);
    }
    return;
  }
  if (*found != t) {
    FindRows(context, args, t, 0, task.count, thread);
    *found = t;
  }
  context.simd().attention(task);
}

// Heads of an item over packed rows: as many as leave every thread an item, `share` being
// a thread's part of all heads. Bits do not depend on it.
int64_t HeadsThatUnpackOnce(int64_t share) {
  return std::clamp(share / kHeadsPerItem * kHeadsPerItem, kHeadsPerItem,
                    kMostHeadsPerItem);
}

// Rows that all queries meet together, at most; an estimate of the work.
int64_t CountRows(const MlaAttentionArgs& args) {
  const int64_t queries = args.q_latent.dim(0);
  if (args.selected.rank > 0) {
    return queries * args.selected.dim(1);
  }
  int64_t rows = 0;
  for (int64_t t = 0; t < queries; ++t) {
    rows += *args.index.positions.row<int32_t>(t) + 1;
  }
  return rows;
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

void MlaAttention(CpuContext& context, const MlaAttentionArgs& args) {
  const bool all = args.selected.rank == 0;
  const bool packed = args.rows.format.is_packed();
  const int64_t queries = args.q_latent.dim(0);
  const int64_t heads = args.q_latent.dim(1);
  const int64_t most = all ? kRowsPerPass : args.selected.dim(1);
  AttentionTask common = {};
  common.latent_dim = args.q_latent.dim(2);
  common.rope_dim = args.q_rope.dim(2);
  TESSERA_CHECK_LE(most, kMaxTopk);
  TESSERA_CHECK_EQ(args.rows.width(), common.latent_dim + common.rope_dim);
  TESSERA_CHECK_LE(4 * (args.rows.width() + most + kScorePadding), kScratchFloats);
  TESSERA_CHECK_LE(kMostHeadsPerItem * common.latent_dim, kScratchFloats);
  TESSERA_CHECK(!packed || most * args.rows.width() <= kUnpackedFloats);
  common.q_latent_stride = args.q_latent.stride(1);
  common.q_rope_stride = args.q_rope.stride(1);
  common.scale = static_cast<float>(args.scale);
  common.out_stride = args.out.stride(1);
  const int64_t tile = packed
                           ? HeadsThatUnpackOnce(queries * heads / context.num_threads())
                           : kHeadsPerItem;
  const int64_t groups = (heads + tile - 1) / tile;
  const auto body = [&](int64_t begin, int64_t end, int thread) {
    AttentionTask task = common;
    task.scratch = context.scratch(thread).panel;
    task.rows = packed ? context.scratch(thread).unpacked : args.rows.rows.as<float>();
    task.offsets = context.scratch(thread).offsets;
    int64_t found = -1;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t t = item / groups;
      const int64_t head = item % groups * tile;
      task.heads = std::min(tile, heads - head);
      task.q_latent = args.q_latent.row<float>(t, head);
      task.q_rope = args.q_rope.row<float>(t, head);
      task.out = args.out.row<float>(t, head);
      if (all) {
        AttendToAll(context, args, t, task, thread, &found);
      } else {
        AttendToSelected(context, args, t, task, thread, &found);
      }
    }
  };
  const int64_t work =
      CountRows(args) * heads * (2 * common.latent_dim + common.rope_dim);
  context.ParallelFor(queries * groups, work, body);
}

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
