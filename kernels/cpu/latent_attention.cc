#include <algorithm>
#include <cstdint>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/latent_rows.h"

namespace tessera::kernels::cpu {
namespace {

// Up to kAttentionHeads heads of a query are an item; their blocks of rows are merged in
// rising order by whoever computed them, hence bits depend on nothing but the query.
struct Item {
  int64_t query;
  int64_t head;
  int64_t heads;
};

class LatentAttention {
 public:
  LatentAttention(CpuContext& context, const MlaAttentionArgs& args)
      : context_(context),
        args_(args),
        rows_(context, args),
        heads_(args.q_latent.dim(1)),
        latent_(args.q_latent.dim(2)),
        rope_(args.q_rope.dim(2)),
        groups_((heads_ + kAttentionHeads - 1) / kAttentionHeads),
        items_(args.q_latent.dim(0) * groups_) {
    const int64_t width = latent_ + rope_;
    TESSERA_CHECK_EQ(args.rows.width(), width);
    TESSERA_CHECK_LE(kAttentionHeads * (width + kAttentionRows), kScratchFloats);
    TESSERA_CHECK_LE(kAttentionHeads * latent_, kScratchFloats);
    TESSERA_CHECK_LE(kAttentionRows * width, kUnpackedFloats);
  }

  void Run() {
    // Where there are items enough for all threads, nothing waits for a merge.
    constexpr int64_t kItemsPerThread = 4;
    if (items_ >= kItemsPerThread * context_.num_threads()) {
      RunItems();
    } else {
      RunBlocks();
    }
  }

 private:
  Item ItemAt(int64_t i) const {
    const int64_t head = i % groups_ * kAttentionHeads;
    return {i / groups_, head, std::min(kAttentionHeads, heads_ - head)};
  }
  int64_t BlocksOf(int64_t item) const { return rows_.BlocksOf(item / groups_); }
  int64_t CountBlocks() const {
    int64_t blocks = 0;
    for (int64_t t = 0; t < args_.q_latent.dim(0); ++t) {
      blocks += BlocksOf(t * groups_);
    }
    return blocks * groups_;
  }
  // Of blocks, in multiply-adds.
  int64_t WorkOf(int64_t blocks) const {
    return blocks * kAttentionRows * kAttentionHeads * (2 * latent_ + rope_);
  }

  // The queries of an item with heads in lanes, in this thread's panel.
  void PackQueries(const Item& item, int thread) const {
    float* q = context_.scratch(thread).panel;
    std::fill_n(q, (latent_ + rope_) * kAttentionHeads, 0.0F);
    for (int64_t h = 0; h < item.heads; ++h) {
      const float* latent = args_.q_latent.row<float>(item.query, item.head + h);
      const float* rope = args_.q_rope.row<float>(item.query, item.head + h);
      for (int64_t i = 0; i < latent_; ++i) {
        q[i * kAttentionHeads + h] = latent[i];
      }
      for (int64_t i = 0; i < rope_; ++i) {
        q[(latent_ + i) * kAttentionHeads + h] = rope[i];
      }
    }
  }

  // Results of an item: to its place in `out`, or to that of one of its blocks.
  AttentionTask TaskAt(const Item& item, float* out, int64_t out_stride,
                       Softmax* softmax) const {
    AttentionTask task = {};
    task.heads = item.heads;
    task.latent_dim = latent_;
    task.rope_dim = rope_;
    task.scale = static_cast<float>(args_.scale);
    task.out = out;
    task.out_stride = out_stride;
    task.maxima = softmax->maxima;
    task.totals = softmax->totals;
    return task;
  }
  AttentionTask TaskInPlace(const Item& item, Softmax* softmax) const {
    return TaskAt(item, args_.out.row<float>(item.query, item.head), args_.out.stride(1),
                  softmax);
  }

  // The block-th block of an item whose queries are packed.
  void AttendToBlock(const Item& item, int64_t block, AttentionTask task,
                     int thread) const {
    const CpuContext::ThreadScratch& scratch = context_.scratch(thread);
    const int64_t first = block * kAttentionRows;
    task.count = std::min(kAttentionRows, rows_.CountOf(item.query) - first);
    task.rows = rows_.Find(item.query, first, task.count, thread);
    task.q = scratch.panel;
    task.scratch = scratch.panel + (latent_ + rope_) * kAttentionHeads;
    task.offsets = scratch.offsets;
    context_.simd().attention(task);
  }

  // A padding row that sees nothing.
  void Clear(const Item& item) const {
    for (int64_t h = 0; h < item.heads; ++h) {
      std::fill_n(args_.out.row<float>(item.query, item.head + h), latent_, 0.0F);
    }
  }

  void AttendToAll(int64_t i, int thread) const {
    const Item item = ItemAt(i);
    const int64_t blocks = BlocksOf(i);
    if (blocks == 0) {
      return Clear(item);
    }
    Softmax softmax;
    Softmax of_block;
    const AttentionTask all = TaskInPlace(item, &softmax);
    const AttentionTask one =
        TaskAt(item, context_.scratch(thread).rows, latent_, &of_block);
    PackQueries(item, thread);
    AttendToBlock(item, 0, all, thread);
    for (int64_t block = 1; block < blocks; ++block) {
      AttendToBlock(item, block, one, thread);
      context_.simd().merge_attention(one, all);
    }
    context_.simd().finish_attention(all);
  }

  // An item belongs to the thread whose part of all blocks holds its middle; one without
  // blocks counts as one.
  void RunItems() const {
    const int64_t total = CountBlocks() + items_;
    context_.ParallelFor(total, WorkOf(total),
                         [this](int64_t begin, int64_t end, int thread) {
                           int64_t before = 0;
                           for (int64_t i = 0; i < items_; ++i) {
                             const int64_t cost = BlocksOf(i) + 1;
                             const int64_t middle = before + cost / 2;
                             if (middle >= begin && middle < end) {
                               AttendToAll(i, thread);
                             }
                             before += cost;
                           }
                         });
  }

  // Blocks [first, first + count) of all items, in order, each to its place in the room
  // for what passes between two loops; then they are merged.
  void RunBlocks() const {
    const int64_t floats = kAttentionHeads * latent_ + kSoftmaxFloats;
    const int64_t most = kExpertFloats / floats;
    const int64_t total = CountBlocks();
    TESSERA_CHECK_LE(items_ * kSoftmaxFloats, kScratchFloats);
    for (int64_t first = 0; first < total || first == 0; first += most) {
      const int64_t count = std::min(most, total - first);
      context_.ParallelFor(
          count, WorkOf(count), [&](int64_t begin, int64_t end, int thread) {
            VisitBlocks(first + begin, first + end, [&](int64_t i, BlockRange blocks) {
              const Item item = ItemAt(i);
              PackQueries(item, thread);
              for (int64_t block = blocks.begin; block < blocks.end; ++block) {
                AttendToBlock(item, block, TaskOfPlace(item, blocks.place(block) - first),
                              thread);
              }
            });
          });
      context_.ParallelFor(
          items_, 4 * count * floats, [&](int64_t begin, int64_t end, int) {
            VisitBlocks(first, first + count, [&](int64_t i, BlockRange blocks) {
              if (i >= begin && i < end) {
                MergeBlocks(i, blocks, first);
              }
            });
          });
    }
  }

  template <typename Visit>
  void VisitBlocks(int64_t begin, int64_t end, const Visit& visit) const {
    VisitBlocksOf(
        items_, [this](int64_t i) { return BlocksOf(i); }, begin, end, visit);
  }

  AttentionTask TaskOfPlace(const Item& item, int64_t place) const {
    float* at =
        context_.expert_items() + place * (kAttentionHeads * latent_ + kSoftmaxFloats);
    return TaskAt(item, at + kSoftmaxFloats, latent_, reinterpret_cast<Softmax*>(at));
  }

  // Merges blocks of an item that lie `first` places before those of all.
  void MergeBlocks(int64_t i, const BlockRange& blocks, int64_t first) const {
    const Item item = ItemAt(i);
    const int64_t last = BlocksOf(i);
    if (last == 0) {
      return Clear(item);
    }
    auto* softmax = reinterpret_cast<Softmax*>(context_.shared()) + i;
    MergeBlocksInto(
        TaskInPlace(item, softmax), blocks, last, context_,
        [&](int64_t block) { return TaskOfPlace(item, blocks.place(block) - first); });
  }

  CpuContext& context_;
  const MlaAttentionArgs& args_;
  const LatentRows rows_;
  const int64_t heads_;
  const int64_t latent_;
  const int64_t rope_;
  const int64_t groups_;
  const int64_t items_;
};

}  // namespace

void MlaAttention(CpuContext& context, const MlaAttentionArgs& args) {
  if (context.rounds_dense()) {
    return RoundedMlaAttention(context, args);
  }
  LatentAttention(context, args).Run();
}

}  // namespace tessera::kernels::cpu
