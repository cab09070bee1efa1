// Grouped experts in one launch for all experts of a format (expert_table.h). A block
// makes one item: it finds the item's expert by a binary search over the offsets and that
// expert's weights in the table; half warps make the activations, into shared memory,
// then the outputs. Shared memory: 4 bytes an activation. Bound: memory, the expert's
// weights, read once an item. Exact but for exp.
//
// The grid is the number of items that `out` has room for, which may be more than the
// offsets name: the blocks of the others return at once. So a launch that is captured
// with the largest number of items serves any smaller one.
#include <cmath>
#include <cstdint>

#include "common/check.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/expert_table.h"
#include "kernels/cuda/primitives/device_tensor.cuh"
#include "kernels/cuda/primitives/lane_sum.cuh"
#include "kernels/cuda/primitives/swiglu.cuh"
#include "kernels/cuda/primitives/weight_decode.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr uint32_t kBlock = 256;
constexpr int64_t kRowsAtOnce = kBlock / kLanes;

struct ExpertKernel {
  static constexpr const char* kName = "ExpertKernel";
  DeviceRows<const float> x;
  DeviceRows<const int32_t> row_of_item;
  DeviceRows<const int32_t> item_offsets;
  DeviceRows<const float> item_weights;  // without rows: ones
  ExpertPart part;
  float limit;  // infinity: none
  DeviceRows<float> out;

  // The first expert whose items end beyond `item`, which lies before the last end.
  TESSERA_DEVICE int64_t ExpertOf(Thread& thread, int64_t item) const {
    int64_t low = 0;
    int64_t high = item_offsets.rows - 2;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (thread.Load(item_offsets.span, item_offsets.Begin(middle + 1)) > item) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }

  // `weight` at the table's addresses `at` and `at + 1`.
  TESSERA_DEVICE DeviceWeight Placed(Thread& thread, DeviceWeight weight,
                                     int64_t at) const {
    weight.values.data = thread.Load(part.addresses, at);
    weight.scales.data = thread.Load(part.addresses, at + 1);
    return weight;
  }

  // The activations of an item, limited and weighted, into `hidden`.
  TESSERA_DEVICE void Activate(Thread& thread, int64_t item, int64_t addresses,
                               SharedSpan<float> hidden) const {
    const DeviceWeight gate = Placed(thread, part.gate, addresses);
    const DeviceWeight up = Placed(thread, part.up, addresses + 2);
    const int64_t from = x.Begin(thread.Load(row_of_item.span, row_of_item.Begin(item)));
    const float weight = item_weights.rows == 0
                             ? 1.0F
                             : thread.Load(item_weights.span, item_weights.Begin(item));
    const int64_t lane = thread.lane() % kLanes;
    // Both halves of a warp take part in its shuffles, the last one with a row again.
    for (int64_t first = 0; first < gate.rows; first += kRowsAtOnce) {
      const int64_t mine = first + thread.linear_thread() / kLanes;
      const int64_t row = mine < gate.rows ? mine : gate.rows - 1;
      float g = 0;
      float u = 0;
      for (int64_t i = lane; i < x.cols; i += kLanes) {
        const float value = thread.Load(x.span, from + i);
        g = fmaf(value, LoadWeight(thread, gate, row, i), g);
        u = fmaf(value, LoadWeight(thread, up, row, i), u);
      }
      g = ReduceLanes(thread, g);
      u = ReduceLanes(thread, u);
      if (lane == 0 && mine < gate.rows) {
        thread.Store(hidden, row, SwiGlu(g, u, limit) * weight);
      }
    }
  }

  TESSERA_DEVICE void Project(Thread& thread, int64_t item, int64_t addresses,
                              SharedSpan<float> hidden) const {
    const DeviceWeight down = Placed(thread, part.down, addresses + 4);
    const int64_t lane = thread.lane() % kLanes;
    for (int64_t first = 0; first < down.rows; first += kRowsAtOnce) {
      const int64_t mine = first + thread.linear_thread() / kLanes;
      const int64_t row = mine < down.rows ? mine : down.rows - 1;
      float sum = 0;
      for (int64_t i = lane; i < part.gate.rows; i += kLanes) {
        sum = fmaf(thread.Load(hidden, i), LoadWeight(thread, down, row, i), sum);
      }
      sum = ReduceLanes(thread, sum);
      if (lane == 0 && mine < down.rows) {
        thread.Store(out.span, out.Begin(item) + row, sum);
      }
    }
  }

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t item = thread.block_idx().x;
    const int64_t last = item_offsets.Begin(item_offsets.rows - 1);
    if (item >= thread.Load(item_offsets.span, last) ||
        item < thread.Load(item_offsets.span, 0)) {
      return;
    }
    const int64_t addresses = ExpertPart::kAddresses * ExpertOf(thread, item);
    if (thread.Load(part.addresses, addresses) == nullptr) {
      return;  // an expert of another launch
    }
    const auto hidden = thread.DynamicShared<float>();
    Activate(thread, item, addresses, hidden);
    thread.SyncBlock();
    Project(thread, item, addresses, hidden);
  }
};

}  // namespace

void GroupedExperts(GpuStream& stream, const ExpertPart& part,
                    const GroupedExpertsArgs& args) {
  TESSERA_CHECK_EQ(part.addresses.size,
                   (args.item_offsets.dim(0) - 1) * int64_t{ExpertPart::kAddresses});
  ExpertKernel kernel;
  kernel.x = RowsOf<const float>(args.x);
  kernel.row_of_item = ColumnOf<const int32_t>(args.row_of_item);
  kernel.item_offsets = ColumnOf<const int32_t>(args.item_offsets);
  if (args.item_weights.rank > 0) {
    kernel.item_weights = ColumnOf<const float>(args.item_weights);
  }
  kernel.part = part;
  kernel.limit = args.swiglu_limit > 0 ? static_cast<float>(args.swiglu_limit) : INFINITY;
  kernel.out = RowsOf<float>(args.out);
  if (kernel.out.rows > 0) {
    Launch(stream,
           {.grid = {static_cast<uint32_t>(kernel.out.rows)},
            .block = {kBlock},
            .shared_bytes = static_cast<uint32_t>(4 * part.gate.rows)},
           kernel);
  }
}

void GroupedExperts(GpuStream& stream, const ExpertTable& table,
                    const GroupedExpertsArgs& args) {
  TESSERA_CHECK_EQ(args.item_offsets.dim(0), table.num_experts() + 1);
  for (const ExpertPart& part : table.parts()) {
    GroupedExperts(stream, part, args);
  }
}

}  // namespace tessera::kernels::cuda
