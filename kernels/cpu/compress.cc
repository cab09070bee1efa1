#include <algorithm>

#include "kernels/cpu/cpu_ops.h"

namespace tessera::kernels::cpu {
namespace {

// Channels of one work item: what a table pools at once on every instruction set.
constexpr int64_t kChannels = 64;

// Finds the slots of the entry that position p completes, from channel `first` on; the
// values come first, then the gates. Returns how many slots there are.
int64_t FindSlots(const CompressArgs& args, int64_t t, int64_t first,
                  const float** pointers) {
  const int64_t position = *args.index.positions.row<int32_t>(t);
  const int64_t own = position + 1 - args.ratio;
  const int64_t begin = args.overlap && own > 0 ? own - args.ratio : own;
  const int64_t count = position + 1 - begin;
  const int32_t* blocks = BlocksOfRow(args.index, t);
  for (int64_t p = begin; p <= position; ++p) {
    const int64_t channel = first + (args.overlap && p >= own ? args.out.dim(1) : 0);
    pointers[p - begin] =
        PagedRow<float>(args.values, blocks, args.index.block_size, p) + channel;
    pointers[count + p - begin] =
        PagedRow<float>(args.gates, blocks, args.index.block_size, p) + channel;
  }
  return count;
}

}  // namespace

void Compress(CpuContext& context, const CompressArgs& args) {
  const int64_t tokens = args.out.dim(0);
  const int64_t dim = args.out.dim(1);
  TESSERA_CHECK_EQ(args.values.dim(2), args.overlap ? 2 * dim : dim);
  TESSERA_CHECK_EQ(args.gates.dim(2), args.values.dim(2));
  TESSERA_CHECK(args.ratio > 0 && args.ratio <= kMaxTopk);
  const int64_t tiles = (dim + kChannels - 1) / kChannels;
  // A token in `ratio` pools `ratio` slots or twice as many, an exponential each.
  context.ParallelFor(tokens * tiles, tokens * dim * 20,
                      [&](int64_t begin, int64_t end, int thread) {
                        const float** pointers = context.scratch(thread).row_pointers();
                        for (int64_t item = begin; item < end; ++item) {
                          const int64_t t = item / tiles;
                          const int64_t first = item % tiles * kChannels;
                          PoolTask task = {};
                          task.channels = std::min(kChannels, dim - first);
                          task.out = args.out.row<float>(t) + first;
                          const int64_t position = *args.index.positions.row<int32_t>(t);
                          if (position < 0 || (position + 1) % args.ratio != 0) {
                            std::fill_n(task.out, task.channels, 0.0F);
                            continue;
                          }
                          task.count = FindSlots(args, t, first, pointers);
                          task.values = pointers;
                          task.gates = pointers + task.count;
                          context.simd().pool(task);
                        }
                      });
}

}  // namespace tessera::kernels::cpu
