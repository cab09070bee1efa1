// Grouped experts, one launch an expert, since their weights come from the host. A block
// makes an item of its expert, then the one a grid further: half warps the activations,
// into shared memory, then the outputs. Shared memory: 4 bytes an activation. Bound:
// memory, the expert's weights, read once an item. Exact but for exp.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/primitives/device_tensor.cuh"
#include "kernels/cuda/primitives/lane_sum.cuh"
#include "kernels/cuda/primitives/weight_decode.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr uint32_t kBlock = 256;
constexpr int64_t kRowsAtOnce = kBlock / kLanes;
constexpr int64_t kBlocksPerFairShare = 2;

struct ExpertKernel {
  static constexpr const char* kName = "ExpertKernel";
  DeviceRows<const float> x;
  DeviceRows<const int32_t> row_of_item;
  DeviceRows<const int32_t> item_offsets;
  DeviceRows<const float> item_weights;  // without rows: ones
  DeviceWeight gate;
  DeviceWeight up;
  DeviceWeight down;
  int64_t expert;
  float limit;  // infinity: none
  DeviceRows<float> out;

  TESSERA_DEVICE float Activation(float g, float u) const {
    // Comparisons that leave a NaN as it is.
    const float limited = u > limit ? limit : (u < -limit ? -limit : u);
    const float bounded = g > limit ? limit : g;
    return bounded / (1.0F + expf(-bounded)) * limited;
  }

  // The activations of an item, limited and weighted, into `hidden`.
  TESSERA_DEVICE void Activate(Thread& thread, int64_t item,
                               SharedSpan<float> hidden) const {
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
        thread.Store(hidden, row, Activation(g, u) * weight);
      }
    }
  }

  TESSERA_DEVICE void Project(Thread& thread, int64_t item,
                              SharedSpan<float> hidden) const {
    const int64_t lane = thread.lane() % kLanes;
    for (int64_t first = 0; first < down.rows; first += kRowsAtOnce) {
      const int64_t mine = first + thread.linear_thread() / kLanes;
      const int64_t row = mine < down.rows ? mine : down.rows - 1;
      float sum = 0;
      for (int64_t i = lane; i < gate.rows; i += kLanes) {
        sum = fmaf(thread.Load(hidden, i), LoadWeight(thread, down, row, i), sum);
      }
      sum = ReduceLanes(thread, sum);
      if (lane == 0 && mine < down.rows) {
        thread.Store(out.span, out.Begin(item) + row, sum);
      }
    }
  }

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const auto hidden = thread.DynamicShared<float>();
    const int64_t end = thread.Load(item_offsets.span, item_offsets.Begin(expert + 1));
    for (int64_t item =
             int64_t{thread.Load(item_offsets.span, item_offsets.Begin(expert))} +
             thread.block_idx().x;
         item < end; item += thread.grid_dim().x) {
      Activate(thread, item, hidden);
      thread.SyncBlock();
      Project(thread, item, hidden);
      thread.SyncBlock();
    }
  }
};

}  // namespace

void GroupedExperts(GpuStream& stream, const GroupedExpertsArgs& args) {
  TESSERA_CHECK_EQ(args.item_offsets.dim(0), std::ssize(args.experts) + 1);
  ExpertKernel kernel;
  kernel.x = RowsOf<const float>(args.x);
  kernel.row_of_item = ColumnOf<const int32_t>(args.row_of_item);
  kernel.item_offsets = ColumnOf<const int32_t>(args.item_offsets);
  if (args.item_weights.rank > 0) {
    kernel.item_weights = ColumnOf<const float>(args.item_weights);
  }
  kernel.limit = args.swiglu_limit > 0 ? static_cast<float>(args.swiglu_limit) : INFINITY;
  kernel.out = RowsOf<float>(args.out);
  // How many items an expert has is not known here: some more blocks than a fair share.
  const int64_t experts = std::max<int64_t>(std::ssize(args.experts), 1);
  const int64_t blocks =
      std::min(kernel.out.rows, kBlocksPerFairShare * (kernel.out.rows / experts + 1));
  for (int64_t e = 0; kernel.out.rows > 0 && e < std::ssize(args.experts); ++e) {
    const ExpertWeights& expert = args.experts[static_cast<size_t>(e)];
    TESSERA_CHECK_LE(expert.gate.rows, kMaxExpertWidth);
    kernel.gate = WeightOf(expert.gate);
    kernel.up = WeightOf(expert.up);
    kernel.down = WeightOf(expert.down);
    kernel.expert = e;
    Launch(stream,
           {.grid = {static_cast<uint32_t>(blocks)},
            .block = {kBlock},
            .shared_bytes = static_cast<uint32_t>(4 * expert.gate.rows)},
           kernel);
  }
}

}  // namespace tessera::kernels::cuda
