#include <algorithm>
#include <cstdint>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/latent_rows.h"

namespace tessera::kernels::cpu {
namespace {

// Rows that a thread rounds at a time: whole blocks of RoundedRows and whole quads.
constexpr int64_t kRoundingUnit = 12;
static_assert(kRoundingUnit % kRoundedBlockRows == 0 && kRoundingUnit % 4 == 0 &&
              kAttentionRows % kRoundingUnit == 0);

// From this many queries of a sequence on its rows are rounded once for all of them.
constexpr int64_t kTogether = 4;

int64_t Parts(int64_t n, int64_t size) { return (n + size - 1) / size; }

// Queries that see the first rows of one sequence, as those of a prefill do, share its
// rounded rows. Others round the rows of their blocks, each block to its place, and are
// merged afterwards. A row has the same codes either way, and blocks are merged in rising
// order, hence bits depend on nothing but the query and its rows.
class RoundedLatentAttention {
 public:
  RoundedLatentAttention(CpuContext& context, const MlaAttentionArgs& args)
      : context_(context),
        args_(args),
        rows_(context, args),
        queries_(args.q_latent.dim(0)),
        heads_(args.q_latent.dim(1)),
        latent_(args.q_latent.dim(2)),
        width_(latent_ + args.q_rope.dim(2)),
        groups_of_heads_(Parts(heads_, kAttentionHeads)),
        tiles_(Parts(latent_, kValueColumns)) {
    TESSERA_CHECK_EQ(args.rows.width(), width_);
    leaves_.count = 2;
    leaves_.input[1] = latent_;
    leaves_.input[2] = width_;
    leaves_.begin[1] = Parts(latent_, kRoundedGroup);
    leaves_.begin[2] = leaves_.begin[1] + Parts(width_ - latent_, kRoundedGroup);
    groups_ = leaves_.begin[2];
    key_floats_ = kAttentionRows * groups_ *
                  (kRoundedGroup * context.simd().rounded_value_bytes / 4);
    value_floats_ = Parts(latent_, 16) * kAttentionQuads * 16;
    block_floats_ = key_floats_ + 2 * kAttentionRows * groups_ + value_floats_ +
                    tiles_ * kAttentionRows;
    query_floats_ = groups_ * (kRoundedGroupBytes / 4 + 16);
    place_floats_ = kAttentionHeads * latent_ + kSoftmaxFloats;
    // Packed rows, a block of rounded ones, and rounded queries.
    TESSERA_CHECK_LE(
        kAttentionRows * width_ + block_floats_ + groups_of_heads_ * query_floats_,
        kUnpackedFloats);
    TESSERA_CHECK_LE((width_ + 32) * kAttentionHeads + kRoundedAttentionScratch,
                     kScratchFloats);
    TESSERA_CHECK_LE(kAttentionHeads * latent_, kScratchFloats);
    TESSERA_CHECK_LE(block_floats_, kExpertFloats);
    TESSERA_CHECK_LE(groups_of_heads_ * place_floats_, kExpertFloats);
    TESSERA_CHECK_LE(groups_of_heads_ * kSoftmaxFloats, kScratchFloats);
  }

  // Heads whose results of a block fit the room between two loops, and whose state fits.
  static int64_t MostHeads(int64_t latent_dim) {
    const int64_t groups =
        std::min(kExpertFloats / (kAttentionHeads * latent_dim + kSoftmaxFloats),
                 kScratchFloats / kSoftmaxFloats);
    TESSERA_CHECK(groups > 0);
    return groups * kAttentionHeads;
  }

  void Run() {
    // Whose state between blocks fits.
    const int64_t most = kScratchFloats / (groups_of_heads_ * kSoftmaxFloats);
    int64_t alone = 0;  // the first query that nobody has attended for
    for (int64_t begin = 0; begin < queries_;) {
      const int64_t end = std::min(EndOfRun(begin), begin + most);
      if (AreTogether(end - begin)) {
        AttendAlone(alone, begin);
        AttendTogether(begin, end);
        alone = end;
      } else if (end - alone > most) {
        AttendAlone(alone, begin);
        alone = begin;
      }
      begin = end;
    }
    AttendAlone(alone, queries_);
  }

 private:
  // ---- queries and rows ----

  int64_t SequenceOf(int64_t t) const {
    return *args_.index.sequence_of_row.row<int32_t>(t);
  }
  // Queries from `begin` on that may share rounded rows, or that one.
  int64_t EndOfRun(int64_t begin) const {
    int64_t end = begin;
    while (end < queries_ && SequenceOf(end) == SequenceOf(begin) &&
           rows_.SeesFirstRows(end)) {
      ++end;
    }
    return std::max(end, begin + 1);
  }
  // Whether they are enough to share rows, and to keep all threads busy.
  bool AreTogether(int64_t queries) const {
    return queries >= kTogether &&
           queries * groups_of_heads_ >= 2 * context_.num_threads();
  }

  // Of blocks of one query, in multiply-adds of floats.
  int64_t WorkOf(int64_t blocks) const {
    return blocks * kAttentionRows * heads_ * (width_ + latent_) / 3;
  }

  RoundedCacheRows RowsAt(float* at) const {
    RoundedCacheRows rows = {};
    rows.keys.codes = reinterpret_cast<int8_t*>(at);
    rows.keys.scales = at + key_floats_;
    rows.keys.offsets =
        reinterpret_cast<int32_t*>(rows.keys.scales + kAttentionRows * groups_);
    float* const values = rows.keys.scales + 2 * kAttentionRows * groups_;
    rows.values = reinterpret_cast<uint8_t*>(values);
    rows.steps = values + value_floats_;
    return rows;
  }
  RoundedQueries QueriesAt(float* at) const {
    return {reinterpret_cast<uint8_t*>(at), at + groups_ * (kRoundedGroupBytes / 4)};
  }
  // Of this thread: a block of rounded rows, and the queries of a token.
  RoundedCacheRows RowsOf(int thread) const {
    return RowsAt(context_.scratch(thread).unpacked + kAttentionRows * width_);
  }
  RoundedQueries QueriesOf(int thread, int64_t group) const {
    return QueriesAt(context_.scratch(thread).unpacked + kAttentionRows * width_ +
                     block_floats_ + group * query_floats_);
  }
  int64_t HeadsOf(int64_t group) const {
    return std::min(kAttentionHeads, heads_ - group * kAttentionHeads);
  }
  void RoundQueriesOf(int64_t t, int thread) const {
    for (int64_t group = 0; group < groups_of_heads_; ++group) {
      const int64_t head = group * kAttentionHeads;
      context_.simd().round_queries({.latent = args_.q_latent.row<float>(t, head),
                                     .latent_stride = args_.q_latent.stride(1),
                                     .rope = args_.q_rope.row<float>(t, head),
                                     .rope_stride = args_.q_rope.stride(1),
                                     .heads = HeadsOf(group),
                                     .leaves = leaves_,
                                     .scratch = context_.scratch(thread).panel,
                                     .out = QueriesOf(thread, group)});
    }
  }

  // Rounds the rows [begin, end) of a block whose `count` rows Find has found at `rows`.
  void RoundRows(const float* rows, int64_t begin, int64_t end, RoundedCacheRows out,
                 int thread) const {
    context_.simd().round_cache_rows({.rows = rows,
                                      .offsets = context_.scratch(thread).offsets,
                                      .begin = begin,
                                      .end = end,
                                      .leaves = leaves_,
                                      .out = out});
  }

  // ---- blocks ----

  AttentionTask TaskAt(int64_t group, float* out, int64_t out_stride,
                       Softmax* softmax) const {
    AttentionTask task = {};
    task.heads = HeadsOf(group);
    task.latent_dim = latent_;
    task.rope_dim = width_ - latent_;
    task.scale = static_cast<float>(args_.scale);
    task.out = out;
    task.out_stride = out_stride;
    task.maxima = softmax->maxima;
    task.totals = softmax->totals;
    return task;
  }
  // The results of query t; its state between two loops is the place-th.
  AttentionTask TaskInPlace(int64_t t, int64_t group, int64_t place) const {
    auto* softmax =
        reinterpret_cast<Softmax*>(context_.shared()) + place * groups_of_heads_ + group;
    return TaskAt(group, args_.out.row<float>(t, group * kAttentionHeads),
                  args_.out.stride(1), softmax);
  }

  // Attends to the block-th block of query t, which is at `rows`; the results go to
  // `task` or, if that is another, into `all`.
  void AttendToBlock(int64_t t, int64_t group, int64_t block, AttentionTask task,
                     const AttentionTask* all, const RoundedCacheRows& rows,
                     int thread) const {
    task.count = std::min(kAttentionRows, rows_.CountOf(t) - block * kAttentionRows);
    task.scratch = context_.scratch(thread).panel;
    context_.simd().rounded_attention({.task = task,
                                       .all = all,
                                       .leaves = leaves_,
                                       .q = QueriesOf(thread, group),
                                       .rows = rows});
  }

  // A padding row that sees nothing.
  void Clear(int64_t t) const {
    for (int64_t h = 0; h < heads_; ++h) {
      std::fill_n(args_.out.row<float>(t, h), latent_, 0.0F);
    }
  }

  // ---- queries that share rows ----

  float* SharedBlock(int64_t i) const {
    return context_.expert_items() + i * block_floats_;
  }

  void AttendTogether(int64_t begin, int64_t end) const {
    int64_t longest = begin;
    for (int64_t t = begin; t < end; ++t) {
      longest = rows_.CountOf(t) > rows_.CountOf(longest) ? t : longest;
    }
    const int64_t blocks = rows_.BlocksOf(longest);
    const int64_t most = kExpertFloats / block_floats_;
    for (int64_t first = 0; first < blocks || first == 0; first += most) {
      const int64_t last = std::min(first + most, blocks);
      ShareRows(longest, first, last);
      AttendToShared({begin, end}, first, last);
    }
  }

  // Rounds the blocks [first, last) of query t.
  void ShareRows(int64_t t, int64_t first, int64_t last) const {
    constexpr int64_t kRoundingWork = 32;  // of a value, in multiply-adds
    const int64_t rows = std::min(last * kAttentionRows, rows_.CountOf(t));
    const int64_t count = rows - first * kAttentionRows;
    context_.ParallelFor(Parts(count, kRoundingUnit), count * width_ * kRoundingWork,
                         [&](int64_t begin, int64_t end, int thread) {
                           constexpr int64_t kUnits = kAttentionRows / kRoundingUnit;
                           for (int64_t unit = begin; unit < end;) {
                             const int64_t block = unit / kUnits;
                             const int64_t stop = std::min(end, (block + 1) * kUnits);
                             const int64_t row = block * kAttentionRows;
                             const int64_t in_block =
                                 std::min(kAttentionRows, count - row);
                             const float* found = rows_.Find(
                                 t, first * kAttentionRows + row, in_block, thread);
                             RoundRows(found, unit * kRoundingUnit - row,
                                       std::min(stop * kRoundingUnit - row, in_block),
                                       RowsAt(SharedBlock(block)), thread);
                             unit = stop;
                           }
                         });
  }

  struct Range {
    int64_t begin;
    int64_t end;
  };

  // Those of the blocks [first, last) that each query sees. A query belongs to the thread
  // whose part of all blocks holds its middle; one costs a block by itself.
  void AttendToShared(Range queries, int64_t first, int64_t last) const {
    const auto cost_of = [&](int64_t t) {
      return std::clamp(rows_.BlocksOf(t), first, last) - first + 1;
    };
    int64_t total = 0;
    for (int64_t t = queries.begin; t < queries.end; ++t) {
      total += cost_of(t);
    }
    context_.ParallelFor(
        total, WorkOf(total), [&](int64_t begin, int64_t end, int thread) {
          int64_t before = 0;
          for (int64_t t = queries.begin; t < queries.end; ++t) {
            const int64_t cost = cost_of(t);
            const int64_t middle = before + cost / 2;
            if (middle >= begin && middle < end) {
              AttendToSharedOf(t, t - queries.begin, first, last, thread);
            }
            before += cost;
          }
        });
  }

  void AttendToSharedOf(int64_t t, int64_t place, int64_t first, int64_t last,
                        int thread) const {
    const int64_t blocks = rows_.BlocksOf(t);
    if (blocks == 0) {
      return Clear(t);
    }
    if (blocks <= first) {
      return;
    }
    RoundQueriesOf(t, thread);
    Softmax of_block;
    for (int64_t group = 0; group < groups_of_heads_; ++group) {
      const AttentionTask all = TaskInPlace(t, group, place);
      const AttentionTask one = TaskAt(group, all.out, all.out_stride, &of_block);
      for (int64_t block = first; block < std::min(blocks, last); ++block) {
        const RoundedCacheRows rows = RowsAt(SharedBlock(block - first));
        if (block == 0) {
          AttendToBlock(t, group, block, all, nullptr, rows, thread);
        } else {
          AttendToBlock(t, group, block, one, &all, rows, thread);
        }
      }
      if (blocks <= last) {
        context_.simd().finish_attention(all);
      }
    }
  }

  // ---- queries that round their rows ----

  // The blocks of queries [begin, end), each with the results of all heads to its place
  // in the room for what passes between two loops; then they are merged.
  void AttendAlone(int64_t begin, int64_t end) const {
    const int64_t queries = end - begin;
    if (queries == 0) {
      return;
    }
    int64_t total = 0;
    for (int64_t t = begin; t < end; ++t) {
      total += rows_.BlocksOf(t);
    }
    const int64_t floats = groups_of_heads_ * place_floats_;
    const int64_t most = kExpertFloats / floats;
    const auto visit = [&](int64_t from, int64_t to, const auto& visitor) {
      VisitBlocksOf(
          queries, [&](int64_t i) { return rows_.BlocksOf(begin + i); }, from, to,
          visitor);
    };
    for (int64_t first = 0; first < total || first == 0; first += most) {
      const int64_t count = std::min(most, total - first);
      context_.ParallelFor(
          count, 3 * WorkOf(count), [&](int64_t from, int64_t to, int thread) {
            visit(first + from, first + to, [&](int64_t i, const BlockRange& blocks) {
              AttendToRange(begin + i, blocks, first, thread);
            });
          });
      context_.ParallelFor(
          queries, 4 * count * floats, [&](int64_t from, int64_t to, int) {
            visit(first, first + count, [&](int64_t i, const BlockRange& blocks) {
              if (i >= from && i < to) {
                MergeBlocks(begin + i, i, blocks, first);
              }
            });
          });
    }
  }

  AttentionTask TaskOfPlace(int64_t group, int64_t place) const {
    float* at =
        context_.expert_items() + (place * groups_of_heads_ + group) * place_floats_;
    return TaskAt(group, at + kSoftmaxFloats, latent_, reinterpret_cast<Softmax*>(at));
  }

  void AttendToRange(int64_t t, const BlockRange& blocks, int64_t first_place,
                     int thread) const {
    if (blocks.begin == blocks.end) {
      return;
    }
    RoundQueriesOf(t, thread);
    const RoundedCacheRows rows = RowsOf(thread);
    for (int64_t block = blocks.begin; block < blocks.end; ++block) {
      const int64_t first = block * kAttentionRows;
      const int64_t count = std::min(kAttentionRows, rows_.CountOf(t) - first);
      RoundRows(rows_.Find(t, first, count, thread), 0, count, rows, thread);
      for (int64_t group = 0; group < groups_of_heads_; ++group) {
        AttendToBlock(t, group, block,
                      TaskOfPlace(group, blocks.place(block) - first_place), nullptr,
                      rows, thread);
      }
    }
  }

  // Merges blocks of query t, the i-th, that lie `first` places before those of all.
  void MergeBlocks(int64_t t, int64_t i, const BlockRange& blocks, int64_t first) const {
    const int64_t last = rows_.BlocksOf(t);
    if (last == 0) {
      return Clear(t);
    }
    for (int64_t group = 0; group < groups_of_heads_; ++group) {
      MergeBlocksInto(
          TaskInPlace(t, group, i), blocks, last, context_,
          [&](int64_t block) { return TaskOfPlace(group, blocks.place(block) - first); });
    }
  }

  CpuContext& context_;
  const MlaAttentionArgs& args_;
  const LatentRows rows_;
  const int64_t queries_;
  const int64_t heads_;
  const int64_t latent_;
  const int64_t width_;
  const int64_t groups_of_heads_;
  const int64_t tiles_;
  LeafGroups leaves_ = {};
  int64_t groups_ = 0;  // of a row
  int64_t key_floats_ = 0;
  int64_t value_floats_ = 0;
  int64_t block_floats_ = 0;
  int64_t query_floats_ = 0;
  int64_t place_floats_ = 0;
};

}  // namespace

void RoundedMlaAttention(CpuContext& context, const MlaAttentionArgs& args) {
  // As many heads at a time as there is room for of one query: 2,032 with latents of 512.
  const int64_t most = RoundedLatentAttention::MostHeads(args.q_latent.dim(2));
  const int64_t heads = args.q_latent.dim(1);
  for (int64_t first = 0; first < heads; first += most) {
    const int64_t count = std::min(most, heads - first);
    MlaAttentionArgs part = args;
    part.q_latent = args.q_latent.Slice(1, first, count);
    part.q_rope = args.q_rope.Slice(1, first, count);
    part.out = args.out.Slice(1, first, count);
    RoundedLatentAttention(context, part).Run();
  }
}

}  // namespace tessera::kernels::cpu
