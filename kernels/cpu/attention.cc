#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/cpu/cpu_ops.h"

namespace tessera::kernels::cpu {
namespace {

// Keys scored between two prunings of the candidates.
constexpr int64_t kKeysPerChunk = 4096;
static_assert(kKeysPerChunk + kMaxTopk <= 2 * kMaxTopk);

// One number per (score, position) whose order is the order of selection: higher score
// first, then lower position. -0 counts as +0; NaN is the highest, so that damage is
// selected and seen.
uint64_t CandidateOf(float score, int64_t position) {
  uint32_t order = 0xffffffffU;
  if (!std::isnan(score)) {
    const auto bits = std::bit_cast<uint32_t>(score + 0.0F);  // -0 + 0 is +0
    order = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
  }
  return (static_cast<uint64_t>(order) << 32) |
         (0xffffffffU - static_cast<uint32_t>(position));
}

int32_t PositionOf(uint64_t candidate) {
  return static_cast<int32_t>(0xffffffffU - static_cast<uint32_t>(candidate));
}

// Keeps the `topk` best of candidates[0 .. count); returns how many are left.
int64_t Prune(uint64_t* candidates, int64_t count, int64_t topk) {
  if (count <= topk) {
    return count;
  }
  std::nth_element(candidates, candidates + topk, candidates + count,
                   [](uint64_t a, uint64_t b) { return a > b; });
  return topk;
}

uint64_t* CandidatesOf(const CpuContext& context, int thread) {
  return reinterpret_cast<uint64_t*>(context.scratch(thread).offsets);
}

// Scores positions [begin, end) for query t and leaves the best of them in the thread's
// candidates.
int64_t SelectFromRange(CpuContext& context, const IndexerSelectArgs& args, int64_t t,
                        int64_t begin, int64_t end, int thread) {
  uint64_t* candidates = CandidatesOf(context, thread);
  IndexScoreTask task = {};
  task.q = args.q.row<float>(t);
  task.q_stride = args.q.stride(1);
  task.weights = args.weights.row<float>(t);
  task.heads = args.q.dim(1);
  task.dim = args.q.dim(2);
  task.keys = args.keys.as<float>();
  task.block_stride = args.keys.stride(0);
  task.row_stride = args.keys.stride(1);
  task.blocks = BlocksOfRow(args.index, t);
  task.block_size = args.index.block_size;
  task.scores = context.scratch(thread).rows;
  task.scratch = context.scratch(thread).panel;
  int64_t kept = 0;
  for (int64_t from = begin; from < end; from += kKeysPerChunk) {
    task.begin = from;
    task.end = std::min(from + kKeysPerChunk, end);
    context.simd().index_scores(task);
    for (int64_t s = task.begin; s < task.end; ++s) {
      candidates[kept++] = CandidateOf(task.scores[s - from], s);
    }
    kept = Prune(candidates, kept, args.topk);
  }
  return kept;
}

void StoreSelection(const IndexerSelectArgs& args, int64_t t, const uint64_t* candidates,
                    int64_t count) {
  int32_t* selected = args.selected.row<int32_t>(t);
  for (int64_t i = 0; i < count; ++i) {
    selected[i] = PositionOf(candidates[i]);
  }
  std::sort(selected, selected + count);
  std::fill(selected + count, selected + args.topk, -1);
  *args.num_selected.row<int32_t>(t) = static_cast<int32_t>(count);
}

// What is visible, if that is no more than topk: no score needs to be known.
bool SelectAll(const IndexerSelectArgs& args, int64_t t, int64_t visible) {
  if (visible > args.topk) {
    return false;
  }
  int32_t* selected = args.selected.row<int32_t>(t);
  for (int64_t i = 0; i < args.topk; ++i) {
    selected[i] = i < visible ? static_cast<int32_t>(i) : -1;
  }
  *args.num_selected.row<int32_t>(t) = static_cast<int32_t>(visible);
  return true;
}

// One query over all threads: each selects from a range of positions, then the ranges are
// merged. The best topk of the whole are among the best topk of each range, so the cut
// does not matter.
void SelectOverThreads(CpuContext& context, const IndexerSelectArgs& args, int64_t t,
                       int64_t visible) {
  auto* kept = reinterpret_cast<int64_t*>(context.shared());  // of each thread
  std::fill_n(kept, ThreadPool::kMaxThreads, 0);
  context.ParallelFor(visible, visible * args.q.dim(1) * args.q.dim(2),
                      [&](int64_t begin, int64_t end, int thread) {
                        kept[thread] =
                            SelectFromRange(context, args, t, begin, end, thread);
                      });
  uint64_t* best = CandidatesOf(context, 0);
  int64_t count = kept[0];
  for (int thread = 1; thread < ThreadPool::kMaxThreads && kept[thread] > 0; ++thread) {
    std::copy_n(CandidatesOf(context, thread), kept[thread], best + count);
    count = Prune(best, count + kept[thread], args.topk);
  }
  StoreSelection(args, t, best, count);
}

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

}  // namespace

void IndexerSelect(CpuContext& context, const IndexerSelectArgs& args) {
  const int64_t queries = args.q.dim(0);
  const int64_t heads = args.q.dim(1);
  const int64_t dim = args.q.dim(2);
  TESSERA_CHECK_EQ(args.selected.dim(1), args.topk);
  TESSERA_CHECK_LE(args.topk, kMaxTopk);
  TESSERA_CHECK_LE((heads + 4) * (dim + 16), kScratchFloats);
  if (queries == 1) {
    const int64_t visible = *args.index.positions.row<int32_t>(0) + 1;
    if (!SelectAll(args, 0, visible)) {
      SelectOverThreads(context, args, 0, visible);
    }
    return;
  }
  int64_t keys = 0;
  for (int64_t t = 0; t < queries; ++t) {
    keys += *args.index.positions.row<int32_t>(t) + 1;
  }
  context.ParallelFor(
      queries, keys * heads * dim, [&](int64_t begin, int64_t end, int thread) {
        for (int64_t t = begin; t < end; ++t) {
          const int64_t visible = *args.index.positions.row<int32_t>(t) + 1;
          if (!SelectAll(args, t, visible)) {
            const int64_t count = SelectFromRange(context, args, t, 0, visible, thread);
            StoreSelection(args, t, CandidatesOf(context, thread), count);
          }
        }
      });
}

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

}  // namespace tessera::kernels::cpu
