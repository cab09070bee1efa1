// Pooled entries of compressed attention. A thread makes a channel of a row: maximum,
// then both sums over the slots in rising position. Bound: memory, 8 bytes a slot and
// channel, read twice. Exact but for exp.
#include <cmath>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/primitives/paged_rows.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr uint32_t kBlock = 256;

struct CompressKernel {
  static constexpr const char* kName = "CompressKernel";
  DeviceRows<const float> values;  // of all blocks
  DeviceRows<const float> gates;
  DevicePages pages;
  int64_t ratio;
  bool overlap;
  DeviceRows<float> out;

  // Channel c of the token at `position`, as the entry that ends at `last` sees it.
  TESSERA_DEVICE float At(Thread& thread, const DeviceRows<const float>& of, int64_t t,
                          int64_t position, int64_t last, int64_t c) const {
    const int64_t channel = overlap && position > last - ratio ? out.cols + c : c;
    return thread.Load(of.span, of.Begin(pages.RowOf(thread, t, position)) + channel);
  }

  TESSERA_DEVICE float Pool(Thread& thread, int64_t t, int64_t last, int64_t c) const {
    const int64_t slots = overlap ? 2 * ratio : ratio;
    const int64_t first = last + 1 > slots ? last + 1 - slots : 0;
    float largest = At(thread, gates, t, first, last, c);
    for (int64_t p = first + 1; p <= last; ++p) {
      largest = fmaxf(largest, At(thread, gates, t, p, last, c));
    }
    float sum = 0;
    float total = 0;
    for (int64_t p = first; p <= last; ++p) {
      const float weight = expf(At(thread, gates, t, p, last, c) - largest);
      sum = fmaf(weight, At(thread, values, t, p, last, c), sum);
      total += weight;
    }
    return sum / total;
  }

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t stride = int64_t{thread.grid_dim().x} * kBlock;
    for (int64_t i = GlobalIndex(thread); i < out.rows * out.cols; i += stride) {
      const int64_t t = i / out.cols;
      const int64_t c = i % out.cols;
      const int64_t last = thread.Load(pages.positions.span, pages.positions.Begin(t));
      const bool completes = last >= 0 && (last + 1) % ratio == 0;
      thread.Store(out.span, out.Begin(t) + c,
                   completes ? Pool(thread, t, last, c) : 0.0F);
    }
  }
};

}  // namespace

void Compress(GpuStream& stream, const CompressArgs& args) {
  TESSERA_CHECK_EQ(args.values.dim(2), (args.overlap ? 2 : 1) * args.out.dim(1));
  TESSERA_CHECK_EQ(args.gates.dim(2), args.values.dim(2));
  if (!args.out.empty()) {
    Launch(stream, EachValueConfig(args.out.num_elements(), kBlock),
           CompressKernel{RowsOf<const float>(args.values),
                          RowsOf<const float>(args.gates), PagesOf(args.index),
                          args.ratio, args.overlap, RowsOf<float>(args.out)});
  }
}

}  // namespace tessera::kernels::cuda
