// The cached rows that a query of absorbed MLA attends to, and the blocks of
// kAttentionRows of them whose results are merged in rising order. For the two forms of
// the op: latent_attention.cc and rounded_attention.cc.
#ifndef TESSERA_KERNELS_CPU_LATENT_ROWS_H_
#define TESSERA_KERNELS_CPU_LATENT_ROWS_H_

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/cpu_ops.h"

namespace tessera::kernels::cpu {

// What a thread or a step keeps of an item between its blocks.
struct Softmax {
  float maxima[kAttentionHeads];
  float totals[kAttentionHeads];
};
constexpr int64_t kSoftmaxFloats = 2 * kAttentionHeads;
static_assert(sizeof(Softmax) == kSoftmaxFloats * sizeof(float));

// Borrows both arguments; several threads may ask at once.
class LatentRows {
 public:
  LatentRows(const CpuContext& context, const MlaAttentionArgs& args)
      : context_(context), args_(args) {}

  // Rows that query t attends to.
  int64_t CountOf(int64_t t) const {
    if (args_.selected.rank == 0) {
      return *args_.index.positions.row<int32_t>(t) + 1;
    }
    const int64_t count = *args_.num_selected.row<int32_t>(t);
    TESSERA_CHECK(count >= 0 && count <= args_.selected.dim(1));
    return count;
  }
  int64_t BlocksOf(int64_t t) const {
    return (CountOf(t) + kAttentionRows - 1) / kAttentionRows;
  }

  // Whether those of query t are the first rows of its sequence, in order.
  bool SeesFirstRows(int64_t t) const {
    if (args_.selected.rank == 0) {
      return true;
    }
    const int32_t* selected = args_.selected.row<int32_t>(t);
    const int64_t count = CountOf(t);
    int32_t others = 0;
    for (int64_t i = 0; i < count; ++i) {
      others |= selected[i] ^ static_cast<int32_t>(i);
    }
    return others == 0;
  }

  // Finds rows [first, first + count) of query t, and unpacks them where they are packed:
  // the offsets of `thread` from what is returned name them.
  const float* Find(int64_t t, int64_t first, int64_t count, int thread) const {
    const CpuContext::ThreadScratch& scratch = context_.scratch(thread);
    const int32_t* blocks = BlocksOfRow(args_.index, t);
    const int32_t* selected =
        args_.selected.rank > 0 ? args_.selected.row<int32_t>(t) : nullptr;
    const auto block_size = static_cast<int32_t>(args_.index.block_size);
    const int64_t width = args_.rows.width();
    const bool packed = args_.rows.format.is_packed();
    for (int64_t i = 0; i < count; ++i) {
      const int32_t position =
          selected != nullptr ? selected[first + i] : static_cast<int32_t>(first + i);
      if (packed) {
        scratch.offsets[i] = i * width;
        ReadPagedRow(context_.simd(), args_.rows, blocks, block_size, position,
                     scratch.unpacked + i * width);
      } else {
        scratch.offsets[i] = blocks[position / block_size] * args_.rows.rows.stride(0) +
                             position % block_size * args_.rows.rows.stride(1);
      }
    }
    return packed ? scratch.unpacked : args_.rows.rows.as<float>();
  }

 private:
  const CpuContext& context_;
  const MlaAttentionArgs& args_;
};

// Blocks [begin, end) of an item, whose first one is the before-th of all.
struct BlockRange {
  int64_t begin;
  int64_t end;
  int64_t before;
  int64_t place(int64_t block) const { return before + block; }
};

// visit(item, blocks) of all items that have some among blocks [begin, end) of all, or
// none at all.
template <typename BlocksOf, typename Visit>
void VisitBlocksOf(int64_t items, const BlocksOf& blocks_of, int64_t begin, int64_t end,
                   const Visit& visit) {
  int64_t before = 0;
  for (int64_t i = 0; i < items; ++i) {
    const int64_t blocks = blocks_of(i);
    const BlockRange range = {std::clamp<int64_t>(begin - before, 0, blocks),
                              std::clamp<int64_t>(end - before, 0, blocks), before};
    if (range.begin < range.end || blocks == 0) {
      visit(i, range);
    }
    before += blocks;
  }
}

// Merges blocks of an item that has `last` of them into `all`; task_of(block) has the
// results of one.
template <typename TaskOf>
void MergeBlocksInto(const AttentionTask& all, const BlockRange& blocks, int64_t last,
                     const CpuContext& context, const TaskOf& task_of) {
  for (int64_t block = blocks.begin; block < blocks.end; ++block) {
    const AttentionTask one = task_of(block);
    if (block > 0) {
      context.simd().merge_attention(one, all);
      continue;
    }
    for (int64_t h = 0; h < one.heads; ++h) {
      std::copy_n(one.out + h * one.out_stride, one.latent_dim,
                  all.out + h * all.out_stride);
    }
    std::copy_n(one.maxima, kAttentionHeads, all.maxima);
    std::copy_n(one.totals, kAttentionHeads, all.totals);
  }
  if (blocks.end == last) {
    context.simd().finish_attention(all);
  }
}

}  // namespace tessera::kernels::cpu

#endif  // TESSERA_KERNELS_CPU_LATENT_ROWS_H_
