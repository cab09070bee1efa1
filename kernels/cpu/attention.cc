#include <algorithm>

#include "kernels/cpu/cpu_ops.h"

namespace tessera::kernels::cpu {
namespace {

// What a cached row meets while it is in registers.
constexpr int64_t kHeadsPerItem = 4;

// Rows that one pass over a cache takes where a query attends to everything: their scores
// must fit the scratch. Passes begin at multiples of it whatever else a step holds.
constexpr int64_t kRowsPerPass = 4096;
static_assert(kRowsPerPass <= kMaxTopk);

// Places in a paged cache of `count` positions from `first` on, or of selected[0..].
void FindRows(const PagedIndex& index, const TensorView& cache, const int32_t* blocks,
              const int32_t* selected, int64_t first, int64_t count, int64_t* offsets) {
  const auto block_size = static_cast<int32_t>(index.block_size);
  for (int64_t i = 0; i < count; ++i) {
    const int32_t position =
        selected != nullptr ? selected[i] : static_cast<int32_t>(first + i);
    offsets[i] = blocks[position / block_size] * cache.stride(0) +
                 position % block_size * cache.stride(1);
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
// all but the rows.
void AttendToAll(CpuContext& context, const MlaAttentionArgs& args, int64_t t,
                 AttentionTask task, int thread) {
  const CpuContext::ThreadScratch& scratch = context.scratch(thread);
  const int32_t* blocks = BlocksOfRow(args.index, t);
  const int64_t visible = *args.index.positions.row<int32_t>(t) + 1;
  float* const out = task.out;
  const int64_t out_stride = task.out_stride;
  float maxima[kHeadsPerItem];
  float totals[kHeadsPerItem];
  float pass_maxima[kHeadsPerItem];
  float pass_totals[kHeadsPerItem];
  task.latent_offsets = scratch.offsets;
  task.rope_offsets = scratch.offsets + kMaxTopk;
  for (int64_t first = 0; first < visible; first += kRowsPerPass) {
    task.count = std::min(kRowsPerPass, visible - first);
    FindRows(args.index, args.latent, blocks, nullptr, first, task.count,
             scratch.offsets);
    FindRows(args.index, args.k_rope, blocks, nullptr, first, task.count,
             scratch.offsets + kMaxTopk);
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

// One query and a few heads over the selected rows. `found`: the query whose rows this
// thread's offsets name.
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
  int64_t* offsets = context.scratch(thread).offsets;
  if (*found != t) {
    const int32_t* blocks = BlocksOfRow(args.index, t);
    const int32_t* selected = args.selected.row<int32_t>(t);
    FindRows(args.index, args.latent, blocks, selected, 0, task.count, offsets);
    FindRows(args.index, args.k_rope, blocks, selected, 0, task.count,
             offsets + kMaxTopk);
    *found = t;
  }
  task.latent_offsets = offsets;
  task.rope_offsets = offsets + kMaxTopk;
  context.simd().attention(task);
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

// Heads that share a pass over rows that are keys and values both. A row is fetched once
// per tile of heads for the scores and once for the sums: over thousands of rows, which
// no cache near the core holds, that is the bound, so that tiles are wide where all
// threads have one, and else narrow. Bits do not depend on it.
constexpr int64_t kSharedKvHeads = 16;
constexpr int64_t kNarrowSharedKvHeads = 8;

// Rows of one pass: the scores of a wide tile fit half of the scratch.
constexpr int64_t kSharedKvRowsPerPass = 2048;
static_assert(2 * kSharedKvHeads * kSharedKvRowsPerPass <= kScratchFloats);

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
    if (args.entries.rank == 0) {
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

  // Addresses of rows [first, first + n).
  void Find(int64_t first, int64_t n, const float** rows) const {
    for (int64_t i = first; i < first + n; ++i) {
      if (i < window) {
        *rows++ = PagedRow(args.window_rows, window_blocks, args.window.block_size,
                           window_begin + i);
      } else {
        const int64_t entry = selected == nullptr ? i - window : selected[i - window];
        *rows++ =
            PagedRow(args.entries, entry_blocks, args.entry_index.block_size, entry);
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
      rows.Find(first, task.count, scratch.row_pointers());
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
  const int64_t queries = args.q_latent.dim(0);
  const int64_t heads = args.q_latent.dim(1);
  const int64_t most = all ? kRowsPerPass : args.selected.dim(1);
  AttentionTask common = {};
  common.latent_dim = args.q_latent.dim(2);
  common.rope_dim = args.q_rope.dim(2);
  TESSERA_CHECK_LE(most, kMaxTopk);
  TESSERA_CHECK_LE(4 * (common.latent_dim + common.rope_dim + most + 48), kScratchFloats);
  common.q_latent_stride = args.q_latent.stride(1);
  common.q_rope_stride = args.q_rope.stride(1);
  common.latent = args.latent.as<float>();
  common.k_rope = args.k_rope.as<float>();
  common.scale = static_cast<float>(args.scale);
  common.out_stride = args.out.stride(1);
  const int64_t groups = (heads + kHeadsPerItem - 1) / kHeadsPerItem;
  const auto body = [&](int64_t begin, int64_t end, int thread) {
    AttentionTask task = common;
    task.scratch = context.scratch(thread).panel;
    int64_t found = -1;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t t = item / groups;
      const int64_t head = item % groups * kHeadsPerItem;
      task.heads = std::min(kHeadsPerItem, heads - head);
      task.q_latent = args.q_latent.row<float>(t, head);
      task.q_rope = args.q_rope.row<float>(t, head);
      task.out = args.out.row<float>(t, head);
      if (all) {
        AttendToAll(context, args, t, task, thread);
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
  TESSERA_CHECK_LE(kSharedKvHeads * (common.dim + kSharedKvRowsPerPass + 32),
                   kScratchFloats);
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
