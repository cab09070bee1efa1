// The router. A block makes a token: half warps the logits, a thread a score, then the
// first warp picks: one pass over the experts a slot. Shared memory: 12 bytes an expert,
// 8 a group, 4 a slot. Bound: memory, the gate's weights, read once a token. Exact but
// for exp, log and sqrt. LookupExperts: a thread to an id.
#include <cmath>
#include <limits>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/primitives/device_tensor.cuh"
#include "kernels/cuda/primitives/group_scale.cuh"
#include "kernels/cuda/primitives/lane_sum.cuh"
#include "kernels/cuda/primitives/weight_decode.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr uint32_t kBlock = 256;
constexpr int64_t kLogitsAtOnce = kBlock / kLanes;
constexpr int64_t kMaxGrid = 65535;

// Values that a warp picks the largest of, one by one.
struct Candidates {
  SharedSpan<float> values;
  SharedSpan<int32_t> taken;
};

// The order of picks: a NaN before all else, then the larger value.
TESSERA_DEVICE inline bool IsLarger(float a, float b) {
  return a > b || (IsNan(a) && !IsNan(b));
}

// The largest of [begin, begin + count) that is not taken, ties to the lower index; takes
// it. By the first warp, one at least being left.
TESSERA_DEVICE inline int64_t TakeLargest(Thread& thread, const Candidates& from,
                                          int64_t begin, int64_t count) {
  int64_t best = -1;
  float value = 0;
  for (int64_t i = begin + thread.lane(); i < begin + count; i += kWarpSize) {
    const float other = thread.Load(from.values, i);
    if (thread.Load(from.taken, i) == 0 && (best < 0 || IsLarger(other, value))) {
      best = i;
      value = other;
    }
  }
  for (uint32_t lanes = kWarpSize / 2; lanes > 0; lanes /= 2) {
    const int64_t other = thread.ShuffleXor(best, lanes);
    const float other_value = thread.ShuffleXor(value, lanes);
    const bool ties = !IsLarger(value, other_value) && !IsLarger(other_value, value);
    if (other >= 0 &&
        (best < 0 || IsLarger(other_value, value) || (ties && other < best))) {
      best = other;
      value = other_value;
    }
  }
  thread.SyncWarp();  // shuffles do not order memory: all lanes have read
  if (thread.lane() == 0) {
    thread.Store(from.taken, best, 1);
  }
  thread.SyncWarp();
  return best;
}

struct RouteKernel {
  static constexpr const char* kName = "RouteKernel";
  DeviceRows<const float> x;
  DeviceWeight gate;
  RouterScore score;
  bool fixed;
  DeviceRows<const int32_t> fixed_ids;
  GlobalSpan<const float> bias;  // without data: zeros
  int64_t num_groups;
  int64_t top_groups;
  bool normalize;
  float scaling;
  bool has_padding;
  DeviceRows<const int32_t> positions;
  DeviceRows<int32_t> expert_ids;
  DeviceRows<float> weights;

  TESSERA_DEVICE float ScoreOf(float z) const {
    if (score == RouterScore::kSigmoid) {
      return 1.0F / (1.0F + expf(-z));
    }
    return sqrtf(z > 20.0F ? z : log1pf(expf(z)));
  }

  TESSERA_DEVICE void MakeScores(Thread& thread, int64_t t,
                                 SharedSpan<float> scores) const {
    for (int64_t first = 0; first < gate.rows; first += kLogitsAtOnce) {
      // Both halves of a warp take part in its shuffles, the last one with a row again.
      const int64_t mine = first + thread.linear_thread() / kLanes;
      const int64_t row = mine < gate.rows ? mine : gate.rows - 1;
      float sum = 0;
      for (int64_t i = thread.lane() % kLanes; i < x.cols; i += kLanes) {
        sum = fmaf(thread.Load(x.span, x.Begin(t) + i), LoadWeight(thread, gate, row, i),
                   sum);
      }
      sum = ReduceLanes(thread, sum);
      if (mine < gate.rows && thread.lane() % kLanes == 0) {
        thread.Store(scores, row, ScoreOf(sum));
      }
    }
    thread.SyncBlock();
  }

  // Sets the values of the experts outside the best groups to minus infinity; a group
  // counts with the sum of its two best. By the first warp.
  TESSERA_DEVICE void KeepTopGroups(Thread& thread, const Candidates& experts,
                                    const Candidates& groups) const {
    const int64_t size = gate.rows / num_groups;
    for (int64_t g = 0; g < num_groups; ++g) {
      float sum = 0;
      for (int64_t i = 0; i < (size < 2 ? size : 2); ++i) {
        const int64_t best = TakeLargest(thread, experts, g * size, size);
        sum += thread.Load(experts.values, best);
      }
      if (thread.lane() == 0) {
        thread.Store(groups.values, g, sum);
        thread.Store(groups.taken, g, 0);
      }
    }
    thread.SyncWarp();
    for (int64_t i = 0; i < top_groups; ++i) {
      TakeLargest(thread, groups, 0, num_groups);
    }
    for (int64_t e = thread.lane(); e < gate.rows; e += kWarpSize) {
      thread.Store(experts.taken, e, 0);
      if (thread.Load(groups.taken, e / size) == 0) {
        thread.Store(experts.values, e, -std::numeric_limits<float>::infinity());
      }
    }
    thread.SyncWarp();
  }

  // By the first warp.
  TESSERA_DEVICE void Pick(Thread& thread, int64_t t, SharedSpan<float> scores,
                           const Candidates& experts, const Candidates& groups,
                           SharedSpan<int32_t> picks) const {
    if (!fixed && num_groups > 1) {
      KeepTopGroups(thread, experts, groups);
    }
    for (int64_t slot = 0; slot < expert_ids.cols; ++slot) {
      const int64_t pick = fixed ? thread.Load(fixed_ids.span, fixed_ids.Begin(t) + slot)
                                 : TakeLargest(thread, experts, 0, gate.rows);
      if (thread.lane() == 0) {
        thread.Store(picks, slot, static_cast<int32_t>(pick));
      }
    }
    thread.SyncWarp();
    float total = 0;
    for (int64_t slot = 0; slot < expert_ids.cols; ++slot) {
      total += thread.Load(scores, thread.Load(picks, slot));
    }
    for (int64_t slot = thread.lane(); slot < expert_ids.cols; slot += kWarpSize) {
      const int32_t pick = thread.Load(picks, slot);
      const float weight = thread.Load(scores, pick);
      thread.Store(expert_ids.span, expert_ids.Begin(t) + slot, pick);
      thread.Store(weights.span, weights.Begin(t) + slot,
                   (normalize ? weight / (total + 1e-20F) : weight) * scaling);
    }
  }

  // The ids and weights of a padding row. By the whole block.
  TESSERA_DEVICE void PickNothing(Thread& thread, int64_t t) const {
    for (int64_t slot = thread.linear_thread(); slot < expert_ids.cols; slot += kBlock) {
      thread.Store(expert_ids.span, expert_ids.Begin(t) + slot, -1);
      thread.Store(weights.span, weights.Begin(t) + slot, 0.0F);
    }
  }

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t experts = gate.rows;
    const auto floats = thread.DynamicShared<float>();
    const auto ints = thread.DynamicShared<int32_t>();
    const SharedSpan<float> scores = {floats.data, experts};
    const Candidates of_experts = {{floats.data + experts, experts},
                                   {ints.data + 2 * experts, experts}};
    const Candidates of_groups = {{floats.data + 3 * experts, num_groups},
                                  {ints.data + 3 * experts + num_groups, num_groups}};
    const SharedSpan<int32_t> picks = {ints.data + 3 * experts + 2 * num_groups,
                                       expert_ids.cols};
    for (int64_t t = thread.block_idx().x; t < x.rows; t += thread.grid_dim().x) {
      if (has_padding && thread.Load(positions.span, positions.Begin(t)) < 0) {
        PickNothing(thread, t);
        continue;
      }
      MakeScores(thread, t, scores);
      for (int64_t e = thread.linear_thread(); e < experts; e += kBlock) {
        thread.Store(of_experts.values, e,
                     thread.Load(scores, e) +
                         (bias.data == nullptr ? 0.0F : thread.Load(bias, e)));
        thread.Store(of_experts.taken, e, 0);
      }
      thread.SyncBlock();
      if (thread.linear_thread() < kWarpSize) {
        Pick(thread, t, scores, of_experts, of_groups, picks);
      }
      thread.SyncBlock();
    }
  }
};

struct LookupExpertsKernel {
  static constexpr const char* kName = "LookupExpertsKernel";
  GlobalSpan<const int64_t> table;
  DeviceRows<const int32_t> token_ids;
  DeviceRows<int32_t> out;

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t stride = int64_t{thread.grid_dim().x} * kBlock;
    for (int64_t i = GlobalIndex(thread); i < out.rows * out.cols; i += stride) {
      const int64_t row = i / out.cols;
      const int64_t slot = i % out.cols;
      const int64_t token = thread.Load(token_ids.span, token_ids.Begin(row));
      thread.Store(out.span, out.Begin(row) + slot,
                   static_cast<int32_t>(thread.Load(table, token * out.cols + slot)));
    }
  }
};

}  // namespace

void Route(GpuStream& stream, const RouterArgs& args) {
  const int64_t experts = args.gate.rows;
  const int64_t slots = args.expert_ids.dim(1);
  TESSERA_CHECK_EQ(args.gate.cols, args.x.dim(1));
  TESSERA_CHECK_EQ(args.weights.dim(1), slots);
  TESSERA_CHECK_LE(slots, experts);
  TESSERA_CHECK(args.num_groups >= 1 && experts % args.num_groups == 0);
  RouteKernel kernel;
  kernel.x = RowsOf<const float>(args.x);
  kernel.gate = WeightOf(args.gate);
  kernel.score = args.score;
  kernel.fixed = args.fixed_ids.rank > 0;
  if (kernel.fixed) {
    kernel.fixed_ids = RowsOf<const int32_t>(args.fixed_ids);
  }
  kernel.bias = {args.bias, experts};
  kernel.num_groups = args.num_groups;
  kernel.top_groups = args.top_groups;
  kernel.normalize = args.normalize;
  kernel.scaling = static_cast<float>(args.scaling);
  kernel.has_padding = args.positions.rank > 0;
  if (kernel.has_padding) {
    kernel.positions = ColumnOf<const int32_t>(args.positions);
  }
  kernel.expert_ids = RowsOf<int32_t>(args.expert_ids);
  kernel.weights = RowsOf<float>(args.weights);
  const int64_t shared_bytes = 4 * (3 * experts + 2 * args.num_groups + slots);
  TESSERA_CHECK_LE(experts, kMaxRoutedExperts);
  if (kernel.x.rows > 0) {
    const int64_t blocks = kernel.x.rows < kMaxGrid ? kernel.x.rows : kMaxGrid;
    Launch(stream,
           {.grid = {static_cast<uint32_t>(blocks)},
            .block = {kBlock},
            .shared_bytes = static_cast<uint32_t>(shared_bytes)},
           kernel);
  }
}

void LookupExperts(GpuStream& stream, const int64_t* table, TensorView token_ids,
                   TensorView out) {
  // The op is not told how many tokens the table has: all that an id can name.
  const int64_t table_size = (int64_t{1} << 31) * out.dim(1);
  if (!out.empty()) {
    Launch(stream, EachValueConfig(out.num_elements(), kBlock),
           LookupExpertsKernel{{table, table_size},
                               ColumnOf<const int32_t>(token_ids),
                               RowsOf<int32_t>(out)});
  }
}

}  // namespace tessera::kernels::cuda
