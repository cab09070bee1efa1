#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/cpu/cpu_ops.h"

namespace tessera::kernels::cpu {
namespace {

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

// The best of what was scored so far, in any order; at most `capacity` after Prune.
struct Best {
  uint64_t* candidates;
  int64_t capacity;
  int64_t count = 0;
  uint64_t refused = 0;  // the best one that Prune left out: none below it comes in

  void Add(uint64_t candidate) {
    candidates[count] = candidate;
    count += candidate > refused ? 1 : 0;
  }
  void Prune() {
    if (count > capacity) {
      std::nth_element(candidates, candidates + capacity, candidates + count,
                       [](uint64_t a, uint64_t b) { return a > b; });
      refused = candidates[capacity];
      count = capacity;
    }
  }
  void Merge(const Best& other) {
    std::copy_n(other.candidates, other.count, candidates + count);
    count += other.count;
    Prune();
  }
  // Positions in rising order, then -1.
  void Store(int32_t* out, int64_t size) const {
    for (int64_t i = 0; i < count; ++i) {
      out[i] = PositionOf(candidates[i]);
    }
    std::sort(out, out + count);
    std::fill(out + count, out + size, -1);
  }
};

// What a thread keeps of the entries that it scored, and of their candidate blocks where
// these are wanted. The newest block is not in the race: it is taken in any case.
struct Selection {
  Selection(const CpuContext& context, const IndexerSelectArgs& args, int thread)
      : entries{reinterpret_cast<uint64_t*>(context.scratch(thread).offsets), args.topk},
        blocks{entries.candidates + 2 * kMaxTopk, 0} {
    if (args.candidates_out.rank > 0) {
      blocks.capacity = args.candidates_out.dim(1) - 1;
    }
  }
  Best entries;
  Best blocks;
};

// The entries among which a query selects: the i-th is entry i, or the i-th of the
// candidate blocks.
struct Competition {
  int64_t query = 0;
  int64_t visible = 0;
  int64_t count = 0;
  const int32_t* blocks = nullptr;  // null: all that are visible
  int64_t block = 1;                // entries that stay together when the work is cut

  int64_t EntryAt(int64_t i) const {
    return blocks == nullptr ? i : blocks[i / block] * block + i % block;
  }
};

Competition CompetitionOf(const IndexerSelectArgs& args, int64_t t) {
  Competition all;
  all.query = t;
  all.visible = VisibleEntries(*args.index.positions.row<int32_t>(t), args.ratio);
  all.count = all.visible;
  if (args.candidates.rank > 0 || args.candidates_out.rank > 0) {
    all.block = args.candidate_block;
  }
  if (args.candidates.rank == 0) {
    return all;
  }
  all.blocks = args.candidates.row<int32_t>(t);
  all.count = 0;
  for (int64_t i = 0; i < args.candidates.dim(1) && all.blocks[i] >= 0; ++i) {
    const int64_t first = all.blocks[i] * all.block;
    TESSERA_CHECK_LT(first, all.visible);
    TESSERA_CHECK_EQ(all.count, i * all.block);  // the last one alone may be partial
    all.count += std::min(all.block, all.visible - first);
  }
  return all;
}

IndexScoreTask ScoreTaskOf(CpuContext& context, const IndexerSelectArgs& args, int64_t t,
                           int thread) {
  IndexScoreTask task = {};
  task.q = args.q.row<float>(t);
  task.q_stride = args.q.stride(1);
  task.weights = args.weights.row<float>(t);
  task.heads = args.q.dim(1);
  task.dim = args.q.dim(2);
  if (!args.keys.format.is_packed()) {
    task.keys = args.keys.rows.as<float>();
    task.block_stride = args.keys.rows.stride(0);
    task.row_stride = args.keys.rows.stride(1);
    task.blocks = BlocksOfRow(args.index, t);
    task.block_size = args.index.block_size;
  }
  task.scores = context.scratch(thread).rows;
  task.scratch = context.scratch(thread).panel;
  return task;
}

// Unpacks the keys of entries [from, end) of the competition; `task` becomes that of the
// first ones of one block.
void UnpackKeys(CpuContext& context, const IndexerSelectArgs& args,
                const Competition& among, int thread, IndexScoreTask* task) {
  static constexpr int32_t kFirstBlock = 0;
  float* const unpacked = context.scratch(thread).unpacked;
  const int32_t* blocks = BlocksOfRow(args.index, among.query);
  for (int64_t i = task->begin; i < task->end; ++i) {
    ReadPagedRow(context.simd(), args.keys, blocks, args.index.block_size,
                 among.EntryAt(i), unpacked + (i - task->begin) * task->dim);
  }
  task->keys = unpacked;
  task->row_stride = task->dim;
  task->blocks = &kFirstBlock;
  task->block_size = kKeysPerChunk;
  task->entries = nullptr;
  task->end -= task->begin;
  task->begin = 0;
}

// Takes the blocks of entries [from, end), whose scores begin at `scores`, into the race.
void CollectBlocks(const Competition& among, const float* scores, int64_t from,
                   int64_t end, Best* blocks) {
  const int64_t newest = (among.visible - 1) / among.block;
  for (int64_t first = from; first < end; first += among.block) {
    const int64_t block = first / among.block;
    if (block != newest) {
      uint64_t best = 0;
      for (int64_t i = 0; i < among.block; ++i) {
        best = std::max(best, CandidateOf(scores[first - from + i], block));
      }
      blocks->Add(best);
    }
  }
  blocks->Prune();
}

// Lists the entries [from, end) of a competition of candidate blocks; no block is cut.
void ListEntries(const Competition& among, int64_t from, int64_t end, int32_t* entries) {
  for (int64_t first = from; first < end; first += among.block) {
    const int64_t entry = among.EntryAt(first);
    const int64_t count = std::min(among.block, end - first);
    for (int64_t i = 0; i < count; ++i) {
      *entries++ = static_cast<int32_t>(entry + i);
    }
  }
}

// Scores entries [begin, end) of the competition; the selection lies in the thread's
// scratch.
Selection SelectFromRange(CpuContext& context, const IndexerSelectArgs& args,
                          const Competition& among, int64_t begin, int64_t end,
                          int thread) {
  Selection best(context, args, thread);
  IndexScoreTask task = ScoreTaskOf(context, args, among.query, thread);
  auto* entries = reinterpret_cast<int32_t*>(task.scores + kKeysPerChunk);
  const int64_t chunk = kKeysPerChunk / among.block * among.block;
  for (int64_t from = begin; from < end; from += chunk) {
    const int64_t to = std::min(from + chunk, end);
    task.begin = from;
    task.end = to;
    if (among.blocks != nullptr) {
      ListEntries(among, from, to, entries);
      task.entries = entries;
    }
    if (args.keys.format.is_packed()) {
      UnpackKeys(context, args, among, thread, &task);
    }
    context.simd().index_scores(task);
    for (int64_t i = 0; i < to - from; ++i) {
      best.entries.Add(
          CandidateOf(task.scores[i], among.blocks == nullptr ? from + i : entries[i]));
    }
    best.entries.Prune();
    if (args.candidates_out.rank > 0) {
      CollectBlocks(among, task.scores, from, to, &best.blocks);
    }
  }
  return best;
}

void StoreSelection(const IndexerSelectArgs& args, const Competition& among,
                    Selection best) {
  const int64_t t = among.query;
  best.entries.Store(args.selected.row<int32_t>(t), args.topk);
  *args.num_selected.row<int32_t>(t) = static_cast<int32_t>(best.entries.count);
  if (args.candidates_out.rank > 0) {
    best.blocks.candidates[best.blocks.count++] =
        CandidateOf(0, (among.visible - 1) / among.block);
    best.blocks.Store(args.candidates_out.row<int32_t>(t), args.candidates_out.dim(1));
  }
}

// Selects all where that needs no score: no more than topk compete and, if blocks are
// wanted, there are no more than fit.
bool SelectAll(const IndexerSelectArgs& args, const Competition& among) {
  const int64_t t = among.query;
  const bool with_blocks = args.candidates_out.rank > 0;
  const int64_t blocks = (among.visible + among.block - 1) / among.block;
  if (among.count > args.topk || (with_blocks && blocks > args.candidates_out.dim(1))) {
    return false;
  }
  int32_t* selected = args.selected.row<int32_t>(t);
  for (int64_t i = 0; i < args.topk; ++i) {
    selected[i] = i < among.count ? static_cast<int32_t>(among.EntryAt(i)) : -1;
  }
  *args.num_selected.row<int32_t>(t) = static_cast<int32_t>(among.count);
  for (int64_t i = 0; with_blocks && i < args.candidates_out.dim(1); ++i) {
    args.candidates_out.row<int32_t>(t)[i] = i < blocks ? static_cast<int32_t>(i) : -1;
  }
  return true;
}

// One query over all threads: each selects from a range of entries, then the ranges are
// merged. The best of the whole are among the best of each range, so the cut does not
// matter.
void SelectOverThreads(CpuContext& context, const IndexerSelectArgs& args,
                       const Competition& among) {
  // What each thread kept.
  auto* entries = reinterpret_cast<int64_t*>(context.shared());
  int64_t* blocks = entries + ThreadPool::kMaxThreads;
  std::fill_n(entries, 2 * ThreadPool::kMaxThreads, 0);
  const int64_t units = (among.count + among.block - 1) / among.block;
  context.ParallelFor(units, among.count * args.q.dim(1) * args.q.dim(2),
                      [&](int64_t begin, int64_t end, int thread) {
                        const Selection best = SelectFromRange(
                            context, args, among, begin * among.block,
                            std::min(end * among.block, among.count), thread);
                        entries[thread] = best.entries.count;
                        blocks[thread] = best.blocks.count;
                      });
  Selection best(context, args, 0);
  best.entries.count = entries[0];
  best.blocks.count = blocks[0];
  for (int thread = 1; thread < ThreadPool::kMaxThreads && entries[thread] > 0;
       ++thread) {
    Selection other(context, args, thread);
    other.entries.count = entries[thread];
    other.blocks.count = blocks[thread];
    best.entries.Merge(other.entries);
    best.blocks.Merge(other.blocks);
  }
  StoreSelection(args, among, best);
}

void CheckArguments(const IndexerSelectArgs& args) {
  TESSERA_CHECK_EQ(args.selected.dim(1), args.topk);
  TESSERA_CHECK_LE(args.topk, kMaxTopk);
  if (args.q.rank == 0) {
    TESSERA_CHECK(args.candidates_out.rank == 0);
    return;
  }
  TESSERA_CHECK_LE(args.q.dim(1) * (args.q.dim(2) + 16) + 4 * (args.q.dim(1) + 4),
                   kScratchFloats);
  TESSERA_CHECK_EQ(args.keys.width(), args.q.dim(2));
  TESSERA_CHECK_LE(kKeysPerChunk * args.q.dim(2), kUnpackedFloats);
  TESSERA_CHECK(args.candidates.rank == 0 || args.candidates_out.rank == 0);
  if (args.candidates.rank > 0 || args.candidates_out.rank > 0) {
    TESSERA_CHECK(args.candidate_block > 0 && args.candidate_block <= kKeysPerChunk);
  }
  if (args.candidates_out.rank > 0) {
    TESSERA_CHECK(args.candidates_out.dim(1) > 0);
    TESSERA_CHECK_LE(args.candidates_out.dim(1), kMaxTopk);
  }
}

}  // namespace

void IndexerSelect(CpuContext& context, const IndexerSelectArgs& args) {
  CheckArguments(args);
  const int64_t queries = args.selected.dim(0);
  if (args.q.rank == 0) {
    for (int64_t t = 0; t < queries; ++t) {
      TESSERA_CHECK(SelectAll(args, CompetitionOf(args, t)));
    }
    return;
  }
  if (queries == 1) {
    const Competition among = CompetitionOf(args, 0);
    if (!SelectAll(args, among)) {
      SelectOverThreads(context, args, among);
    }
    return;
  }
  int64_t keys = 0;
  for (int64_t t = 0; t < queries; ++t) {
    keys += VisibleEntries(*args.index.positions.row<int32_t>(t), args.ratio);
  }
  context.ParallelFor(
      queries, keys * args.q.dim(1) * args.q.dim(2),
      [&](int64_t begin, int64_t end, int thread) {
        for (int64_t t = begin; t < end; ++t) {
          const Competition among = CompetitionOf(args, t);
          if (!SelectAll(args, among)) {
            StoreSelection(args, among,
                           SelectFromRange(context, args, among, 0, among.count, thread));
          }
        }
      });
}

}  // namespace tessera::kernels::cpu
