// FP8 products on the tensor cores. A block makes a tile of 64 or 128 outputs by 16 to
// 128 tokens. Its last warp copies: for each 128 inputs the weights' tile, the tokens'
// tile and the tokens' scales into one of the stages, which a full barrier announces. A
// warpgroup for each 64 outputs consumes: four products of 32 inputs, then their sum
// times both scales is added to the thread's sums, and the warp gives the stage back.
//
// Shared memory: the stages, then a scale of the weights for each 128 inputs, then the
// barriers. Registers: 2 values for each of the thread's tile_tokens / 2 results and some
// 40. Bound: HBM in decode, L2 in prefill (docs/design/0010-hopper-kernels.md).
#include <algorithm>
#include <cmath>

#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/cuda/fp8_gemm.h"
#include "kernels/cuda/primitives/device_tensor.cuh"
#include "kernels/cuda/primitives/group_scale.cuh"
#include "kernels/cuda/primitives/matrix_descriptor.cuh"
#include "kernels/cuda/primitives/weight_decode.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr uint32_t kConsumerThreads = 128;
constexpr uint32_t kConsumerOutputs = 64;
constexpr uint32_t kBlockInputs = 128;
constexpr uint32_t kProductInputs = 32;  // of one instruction, also in bytes
constexpr int64_t kMaxGridRows = 65535;

// Which tokens a tile has, and which weights they meet.
struct TileRows {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t group = 0;
};

struct TokenGroups {
  enum class Form { kDense, kContiguous, kMasked };

  Form form = Form::kDense;
  int64_t rows = 0;
  int64_t group_rows = 0;  // of the weights
  int64_t max_rows = 0;
  int64_t tiles_of_group = 0;
  DeviceRows<const int32_t> group_of_row;
  DeviceRows<const int32_t> counts;

  // Empty for a tile without tokens.
  TESSERA_DEVICE TileRows RowsOfTile(Thread& thread, int64_t tile,
                                     int64_t tile_tokens) const {
    if (form == Form::kMasked) {
      const int64_t group = tile / tiles_of_group;
      const int64_t first = group * max_rows;
      const int64_t count = thread.Load(counts.span, counts.Begin(group));
      return {first + tile % tiles_of_group * tile_tokens, first + count, group};
    }
    const int64_t begin = tile * tile_tokens;
    if (form == Form::kDense) {
      return {begin, rows, 0};
    }
    const int64_t group = thread.Load(group_of_row.span, group_of_row.Begin(begin));
    return {begin, group < 0 ? begin : rows, group};
  }
  TESSERA_DEVICE bool IsOf(Thread& thread, int64_t row, int64_t group) const {
    return form != Form::kContiguous ||
           thread.Load(group_of_row.span, group_of_row.Begin(row)) == group;
  }
};

template <uint32_t kConsumers, uint32_t kTokens>
struct Fp8GemmKernel {
  static constexpr const char* kName = "Fp8GemmKernel";
  static constexpr uint32_t kMaxThreads = kConsumers * kConsumerThreads + kWarpSize;
  static constexpr uint32_t kOutputs = kConsumers * kConsumerOutputs;
  static constexpr uint32_t kWeightBytes = kOutputs * kBlockInputs;
  static constexpr uint32_t kTokenBytes = kTokens * kBlockInputs;
  static constexpr uint32_t kScaleBytes = kTokens * sizeof(float);
  static constexpr uint32_t kStageBytes = Fp8StageBytes(kConsumers, kTokens);
  static constexpr uint32_t kValues = kTokens / 2;  // results of a thread

  GpuTileMap weights;
  GpuTileMap tokens;
  GpuTileMap scales;
  DeviceWeight w;
  DeviceRows<float> out;
  TokenGroups groups;
  uint32_t blocks;
  uint32_t stages;

  // ---- shared memory ----

  static_assert(kWeightBytes % 1024 == 0 && kTokenBytes % 1024 == 0);
  TESSERA_DEVICE SharedSpan<uint8_t> WeightTile(Thread& thread, uint32_t stage) const {
    return {thread.DynamicShared<uint8_t>(stage * kWeightBytes).data, kWeightBytes};
  }
  TESSERA_DEVICE SharedSpan<uint8_t> TokenTile(Thread& thread, uint32_t stage) const {
    const uint32_t begin = stages * kWeightBytes + stage * kTokenBytes;
    return {thread.DynamicShared<uint8_t>(begin).data, kTokenBytes};
  }
  TESSERA_DEVICE uint32_t ScalesBegin(uint32_t stage) const {
    return stages * (kWeightBytes + kTokenBytes) +
           stage * (kStageBytes - kWeightBytes - kTokenBytes);
  }
  TESSERA_DEVICE SharedSpan<uint8_t> ScaleTile(Thread& thread, uint32_t stage) const {
    return {thread.DynamicShared<uint8_t>(ScalesBegin(stage)).data, kScaleBytes};
  }
  TESSERA_DEVICE SharedSpan<float> TokenScales(Thread& thread, uint32_t stage) const {
    return {thread.DynamicShared<float>(ScalesBegin(stage)).data, kTokens};
  }
  TESSERA_DEVICE SharedSpan<float> WeightScales(Thread& thread) const {
    return {thread.DynamicShared<float>(stages * kStageBytes).data, blocks};
  }
  // A full and an empty barrier for each stage.
  TESSERA_DEVICE SharedSpan<uint64_t> Barriers(Thread& thread) const {
    const uint32_t begin = stages * kStageBytes + (blocks * 4 + 7) / 8 * 8;
    return {thread.DynamicShared<uint64_t>(begin).data, 2 * int64_t{stages}};
  }

  // ---- the copying thread ----

  TESSERA_DEVICE void Copy(Thread& thread, const TileRows& rows,
                           int64_t weight_row) const {
    const SharedSpan<uint64_t> barriers = Barriers(thread);
    uint32_t stage = 0;
    uint32_t round = 0;
    for (uint32_t block = 0; block < blocks; ++block) {
      // Of the round before; in the first one the stages are empty.
      thread.WaitBarrier(barriers, stages + stage, (round + 1) & 1U);
      thread.ArriveExpecting(barriers, stage, kWeightBytes + kTokenBytes + kScaleBytes);
      const auto column = static_cast<int32_t>(block * kBlockInputs);
      thread.CopyTile(weights, column, static_cast<int32_t>(weight_row),
                      WeightTile(thread, stage), barriers, stage);
      thread.CopyTile(tokens, column, static_cast<int32_t>(rows.begin),
                      TokenTile(thread, stage), barriers, stage);
      thread.CopyTile(scales, static_cast<int32_t>(rows.begin),
                      static_cast<int32_t>(block), ScaleTile(thread, stage), barriers,
                      stage);
      if (++stage == stages) {
        stage = 0;
        ++round;
      }
    }
  }

  // ---- a consumer ----

  // One block of inputs: the sums of the tensor cores, from zero.
  TESSERA_DEVICE void MultiplyBlock(Thread& thread, uint32_t stage, uint32_t consumer,
                                    float (&sums)[kValues]) const {
    const uint64_t a = SwizzledTile(thread.SharedAddress(WeightTile(thread, stage)) +
                                    consumer * kConsumerOutputs * kBlockInputs);
    const uint64_t b = SwizzledTile(thread.SharedAddress(TokenTile(thread, stage)));
    thread.BeginProducts(sums);
    TESSERA_UNROLL
    for (uint32_t i = 0; i < kBlockInputs; i += kProductInputs) {
      thread.MultiplyE4M3(sums, Advanced(a, i), Advanced(b, i), i > 0);
    }
    thread.CommitProducts();
    thread.template WaitProducts<0>(sums);
  }

  TESSERA_DEVICE void Consume(Thread& thread, uint32_t consumer,
                              float (&totals)[kValues]) const {
    const SharedSpan<uint64_t> barriers = Barriers(thread);
    const SharedSpan<float> weight_scales = WeightScales(thread);
    uint32_t stage = 0;
    uint32_t round = 0;
    for (uint32_t block = 0; block < blocks; ++block) {
      thread.WaitBarrier(barriers, stage, round & 1U);
      float sums[kValues];  // the first product sets them
      MultiplyBlock(thread, stage, consumer, sums);
      const float weight_scale = thread.Load(weight_scales, block);
      const SharedSpan<float> token_scales = TokenScales(thread, stage);
      TESSERA_UNROLL
      for (uint32_t i = 0; i < kValues; i += 4) {  // 2 outputs of 2 tokens
        const auto pair =
            thread.template LoadVector<2>(token_scales, 2 * i + 2 * (thread.lane() % 4));
        TESSERA_UNROLL
        for (uint32_t j = 0; j < 4; ++j) {
          totals[i + j] =
              fmaf(sums[i + j], pair.values[j % 2] * weight_scale, totals[i + j]);
        }
      }
      thread.SyncWarp();
      if (thread.lane() == 0) {
        thread.ArriveBarrier(barriers, stages + stage);
      }
      if (++stage == stages) {
        stage = 0;
        ++round;
      }
    }
  }

  TESSERA_DEVICE void StoreTotals(Thread& thread, const TileRows& rows,
                                  int64_t first_output,
                                  const float (&totals)[kValues]) const {
    const uint32_t warp = thread.linear_thread() / kWarpSize;
    const int64_t output = first_output + 16 * warp + thread.lane() / 4;
    TESSERA_UNROLL
    for (uint32_t i = 0; i < kValues; ++i) {
      const int64_t row = rows.begin + i / 4 * 8 + 2 * (thread.lane() % 4) + i % 2;
      const int64_t column = output + i / 2 % 2 * 8;
      if (row < rows.end && column < out.cols && groups.IsOf(thread, row, rows.group)) {
        thread.Store(out.span, out.Begin(row) + column, totals[i]);
      }
    }
  }

  TESSERA_DEVICE void Prepare(Thread& thread, int64_t weight_row) const {
    const SharedSpan<float> weight_scales = WeightScales(thread);
    for (uint32_t block = thread.linear_thread(); block < blocks; block += kMaxThreads) {
      thread.Store(weight_scales, block,
                   LoadScale(thread, w, weight_row, int64_t{block} * kBlockInputs));
    }
    if (thread.linear_thread() == 0) {
      const SharedSpan<uint64_t> barriers = Barriers(thread);
      for (uint32_t stage = 0; stage < stages; ++stage) {
        thread.InitBarrier(barriers, stage, 1);
        thread.InitBarrier(barriers, stages + stage,
                           kConsumers * kConsumerThreads / kWarpSize);
      }
      thread.FenceProxyAsync();
    }
    thread.SyncBlock();
  }

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const TileRows rows = groups.RowsOfTile(thread, thread.block_idx().y, kTokens);
    if (rows.begin >= rows.end) {
      return;
    }
    const int64_t first_output = int64_t{thread.block_idx().x} * kOutputs;
    const int64_t weight_row = rows.group * groups.group_rows + first_output;
    Prepare(thread, weight_row);
    const uint32_t consumer = thread.linear_thread() / kConsumerThreads;
    if (consumer == kConsumers) {
      if (thread.lane() == 0) {
        Copy(thread, rows, weight_row);
      }
      return;
    }
    float totals[kValues] = {};
    Consume(thread, consumer, totals);
    StoreTotals(thread, rows, first_output, totals);
  }
};

// A warp makes a group of a row.
struct QuantizeTokensKernel {
  static constexpr const char* kName = "QuantizeTokensKernel";
  static constexpr uint32_t kMaxThreads = 256;
  DeviceRows<const float> x;
  DeviceRows<uint8_t> codes;
  DeviceRows<float> scales;  // a row for each block of inputs

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t stride = int64_t{thread.grid_dim().x} * (kMaxThreads / kWarpSize);
    for (int64_t i = GlobalIndex(thread) / kWarpSize; i < x.rows * scales.rows;
         i += stride) {
      const int64_t row = i / scales.rows;
      const int64_t first = i % scales.rows * kFp8Block;
      const int64_t count = x.cols - first < kFp8Block ? x.cols - first : kFp8Block;
      const int64_t from = x.Begin(row) + first;
      const float largest = LargestMagnitude(thread, x.span, from, count);
      const float scale =
          IsNan(largest) ? largest : GroupScale(GroupCode::kE4M3, largest);
      for (int64_t j = thread.lane(); j < count; j += kWarpSize) {
        const float value = thread.Load(x.span, from + j) / scale;
        thread.Store(codes.span, codes.Begin(row) + first + j,
                     static_cast<uint8_t>(EncodeE4M3(value)));
      }
      if (thread.lane() == 0) {
        thread.Store(scales.span, scales.Begin(i % scales.rows) + row, scale);
      }
    }
  }
};

absl::StatusOr<GpuTileMap> TokenMap(const Fp8Tokens& x, uint32_t tile_tokens) {
  return GpuTileMap::Create({.data = x.codes.data,
                             .element_bytes = 1,
                             .rows = static_cast<uint64_t>(x.codes.dim(0)),
                             .cols = static_cast<uint64_t>(x.codes.dim(1)),
                             .row_bytes = static_cast<uint64_t>(x.codes.stride(0)),
                             .box_rows = tile_tokens,
                             .box_cols = kBlockInputs,
                             .swizzle = Swizzle::k128});
}

template <uint32_t kConsumers, uint32_t kTokens>
absl::Status LaunchTile(GpuStream& stream, const Fp8Tokens& x, const WeightView& w,
                        const TokenGroups& groups, const Fp8GemmConfig& config,
                        TensorView out) {
  using Kernel = Fp8GemmKernel<kConsumers, kTokens>;
  TESSERA_ASSIGN_OR_RETURN(
      const GpuTileMap weights,
      GpuTileMap::Create({.data = w.data,
                          .element_bytes = 1,
                          .rows = static_cast<uint64_t>(w.rows),
                          .cols = static_cast<uint64_t>(w.cols),
                          .row_bytes = static_cast<uint64_t>(w.row_bytes),
                          .box_rows = Kernel::kOutputs,
                          .box_cols = kBlockInputs,
                          .swizzle = Swizzle::k128}));
  TESSERA_ASSIGN_OR_RETURN(const GpuTileMap tokens, TokenMap(x, kTokens));
  TESSERA_ASSIGN_OR_RETURN(
      const GpuTileMap scales,
      GpuTileMap::Create(
          {.data = x.scales.data,
           .element_bytes = sizeof(float),
           .rows = static_cast<uint64_t>(x.scales.dim(0)),
           .cols = static_cast<uint64_t>(x.scales.dim(1)),
           .row_bytes = static_cast<uint64_t>(x.scales.stride(0)) * sizeof(float),
           .box_rows = 1,
           .box_cols = kTokens}));
  const int64_t outputs = groups.group_rows > 0 ? groups.group_rows : w.rows;
  const int64_t tiles = groups.form == TokenGroups::Form::kMasked
                            ? groups.rows / groups.max_rows * groups.tiles_of_group
                            : (groups.rows + kTokens - 1) / kTokens;
  if (tiles > kMaxGridRows) {
    return InvalidArgumentF("fp8 product: {} tiles of tokens, expected at most {}", tiles,
                            kMaxGridRows);
  }
  const Kernel kernel = {weights,
                         tokens,
                         scales,
                         WeightOf(w),
                         RowsOf<float>(out),
                         groups,
                         BlocksFor(w.cols, kFp8Block),
                         config.stages};
  Launch(stream,
         {.grid = {BlocksFor(outputs, Kernel::kOutputs), static_cast<uint32_t>(tiles)},
          .block = {Kernel::kMaxThreads},
          .shared_bytes = config.shared_bytes},
         kernel);
  return absl::OkStatus();
}

absl::Status LaunchGemm(GpuStream& stream, const Fp8Tokens& x, const WeightView& w,
                        TokenGroups groups, const Fp8GemmConfig& config, TensorView out) {
  TESSERA_RETURN_IF_ERROR(CheckFp8Weight(w));
  TESSERA_CHECK_EQ(x.codes.dim(1), w.cols);
  TESSERA_CHECK_EQ(x.scales.dim(0), (w.cols + kFp8Block - 1) / kFp8Block);
  TESSERA_CHECK_EQ(x.scales.dim(1), x.codes.dim(0));
  TESSERA_CHECK_EQ(out.dim(0), x.codes.dim(0));
  TESSERA_CHECK(groups.group_rows % kFp8Block == 0);
  if (x.codes.dim(0) == 0 || w.rows == 0) {
    return absl::OkStatus();
  }
  groups.rows = x.codes.dim(0);
  if (groups.form == TokenGroups::Form::kMasked) {
    groups.tiles_of_group = BlocksFor(groups.max_rows, config.tile_tokens);
  }
  const bool wide = config.consumers == 2;
  switch (config.tile_tokens) {
    case 16:
      return wide ? LaunchTile<2, 16>(stream, x, w, groups, config, out)
                  : LaunchTile<1, 16>(stream, x, w, groups, config, out);
    case 64:
      return LaunchTile<2, 64>(stream, x, w, groups, config, out);
    default:
      return LaunchTile<2, 128>(stream, x, w, groups, config, out);
  }
}

}  // namespace

void QuantizeTokens(GpuStream& stream, TensorView x, const Fp8Tokens& out) {
  const QuantizeTokensKernel kernel = {RowsOf<const float>(x), RowsOf<uint8_t>(out.codes),
                                       RowsOf<float>(out.scales)};
  const int64_t count = kernel.x.rows * kernel.scales.rows * kWarpSize;
  if (count > 0) {
    Launch(stream, EachValueConfig(count, QuantizeTokensKernel::kMaxThreads), kernel);
  }
}

absl::Status Fp8Linear(GpuStream& stream, const Fp8Tokens& x, const WeightView& w,
                       const Fp8GemmConfig& config, TensorView out) {
  TESSERA_CHECK_EQ(out.dim(1), w.rows);
  return LaunchGemm(stream, x, w, {}, config, out);
}

absl::Status Fp8ContiguousLinear(GpuStream& stream, const Fp8Tokens& x,
                                 const WeightView& w, const Fp8Groups& groups,
                                 const Fp8GemmConfig& config, TensorView out) {
  TESSERA_CHECK_EQ(out.dim(1), groups.group_rows);
  TESSERA_CHECK_EQ(groups.group_of_row.dim(0), x.codes.dim(0));
  TokenGroups on;
  on.form = TokenGroups::Form::kContiguous;
  on.group_rows = groups.group_rows;
  on.group_of_row = ColumnOf<const int32_t>(groups.group_of_row);
  return LaunchGemm(stream, x, w, on, config, out);
}

absl::Status Fp8MaskedLinear(GpuStream& stream, const Fp8Tokens& x, const WeightView& w,
                             const Fp8Groups& groups, const Fp8GemmConfig& config,
                             TensorView out) {
  TESSERA_CHECK_EQ(out.dim(1), groups.group_rows);
  TESSERA_CHECK_EQ(groups.counts.dim(0) * groups.max_rows, x.codes.dim(0));
  TokenGroups on;
  on.form = TokenGroups::Form::kMasked;
  on.group_rows = groups.group_rows;
  on.max_rows = groups.max_rows;
  on.counts = ColumnOf<const int32_t>(groups.counts);
  return LaunchGemm(stream, x, w, on, config, out);
}

}  // namespace tessera::kernels::cuda
