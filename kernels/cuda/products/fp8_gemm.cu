// FP8 products on the tensor cores: tiles and stages are product_tile.cuh's. A block's
// last warp copies. A warpgroup for each 64 outputs consumes: four products of 32 inputs,
// then their sum times both scales is added to the thread's sums, and the warp gives the
// stage back.
//
// Shared memory: the stages, then two scales of the weights for each 128 inputs, then the
// barriers. Registers: 2 values for each of the thread's tile_tokens / 2 results and some
// 40. Bound: HBM in decode, L2 in prefill (docs/design/0010-hopper-kernels.md).
#include <cmath>

#include "common/status_macros.h"
#include "kernels/cuda/primitives/device_tensor.cuh"
#include "kernels/cuda/primitives/weight_decode.cuh"
#include "kernels/cuda/products/fp8_gemm.h"
#include "kernels/cuda/products/product_launch.cuh"
#include "kernels/cuda/products/product_tile.cuh"

namespace tessera::kernels::cuda {
namespace {

template <uint32_t kConsumers, uint32_t kTokens>
struct Fp8GemmKernel : ProductTile<kConsumers, kTokens, kBlockInputs, 0> {
  using Tile = ProductTile<kConsumers, kTokens, kBlockInputs, 0>;
  static constexpr const char* kName = "Fp8GemmKernel";
  static constexpr uint32_t kMaxThreads = kConsumers * kConsumerThreads + kWarpSize;
  static constexpr uint32_t kValues = Tile::kValues;
  static_assert(Tile::kStageBytes == Fp8StageBytes(kConsumers, kTokens));

  using Tile::blocks;
  using Tile::stages;

  // Of the rows of blocks that the tile's outputs lie in: one, or two where the weights
  // are cut inside of a block.
  TESSERA_DEVICE SharedSpan<float> WeightScales(Thread& thread) const {
    return {thread.DynamicShared<float>(this->StagesEnd()).data, 2 * int64_t{blocks}};
  }
  // A full and an empty barrier for each stage.
  TESSERA_DEVICE SharedSpan<uint64_t> Barriers(Thread& thread) const {
    return {thread.DynamicShared<uint64_t>(this->StagesEnd() + 8 * blocks).data,
            2 * int64_t{stages}};
  }

  // By one thread.
  TESSERA_DEVICE void Copy(Thread& thread, const GpuTileMap& map,
                           const TileRows& rows) const {
    const SharedSpan<uint64_t> barriers = Barriers(thread);
    StageCursor at;
    for (uint32_t block = 0; block < blocks; ++block) {
      // Of the round before; in the first one the stages are empty.
      thread.WaitBarrier(barriers, stages + at.stage, (at.round + 1) & 1U);
      this->CopyStage(thread, map, rows, block, at.stage, barriers);
      at.Advance(stages);
    }
  }

  // One block of inputs: the sums of the tensor cores, from zero.
  TESSERA_DEVICE void MultiplyBlock(Thread& thread, uint32_t stage,
                                    float (&sums)[kValues]) const {
    const uint32_t consumer = thread.linear_thread() / kConsumerThreads;
    const uint64_t a =
        SwizzledTile(thread.SharedAddress(this->WeightTile(thread, stage)) +
                     consumer * kConsumerOutputs * kBlockInputs);
    const uint64_t b = SwizzledTile(thread.SharedAddress(this->TokenTile(thread, stage)));
    thread.BeginProducts(sums);
    TESSERA_UNROLL
    for (uint32_t i = 0; i < kBlockInputs; i += kProductInputs) {
      thread.MultiplyE4M3(sums, Advanced(a, i), Advanced(b, i), i > 0);
    }
    thread.CommitProducts();
    thread.template WaitProducts<0>(sums);
  }

  // `second`: for each of the thread's two outputs, whether its scales are those of the
  // second row of blocks.
  TESSERA_DEVICE void Consume(Thread& thread, const uint32_t (&second)[2],
                              float (&totals)[kValues]) const {
    const SharedSpan<uint64_t> barriers = Barriers(thread);
    const SharedSpan<float> weight_scales = WeightScales(thread);
    StageCursor at;
    for (uint32_t block = 0; block < blocks; ++block) {
      thread.WaitBarrier(barriers, at.stage, at.round & 1U);
      float sums[kValues];  // the first product sets them
      MultiplyBlock(thread, at.stage, sums);
      const float of_outputs[2] = {
          thread.Load(weight_scales, second[0] * blocks + block),
          thread.Load(weight_scales, second[1] * blocks + block)};
      const SharedSpan<float> token_scales = this->TokenScales(thread, at.stage);
      TESSERA_UNROLL
      for (uint32_t i = 0; i < kValues; i += 4) {  // 2 outputs of 2 tokens
        const Vector<float, 2> pair = this->ScalesOf(thread, token_scales, i);
        TESSERA_UNROLL
        for (uint32_t j = 0; j < 4; ++j) {
          totals[i + j] =
              fmaf(sums[i + j], pair.values[j % 2] * of_outputs[j / 2], totals[i + j]);
        }
      }
      thread.SyncWarp();
      if (thread.lane() == 0) {
        thread.ArriveBarrier(barriers, stages + at.stage);
      }
      at.Advance(stages);
    }
  }

  TESSERA_DEVICE void Prepare(Thread& thread, const DeviceWeight& w,
                              int64_t weight_row) const {
    const SharedSpan<float> weight_scales = WeightScales(thread);
    const int64_t left = w.rows - 1 - weight_row;
    const int64_t last = weight_row + (left < kOutputs - 1 ? left : kOutputs - 1);
    for (uint32_t i = thread.linear_thread(); i < 2 * blocks; i += kMaxThreads) {
      const int64_t input =
          (this->FirstBlock(thread) + i % blocks) * int64_t{kBlockInputs};
      thread.Store(weight_scales, i,
                   LoadScale(thread, w, i < blocks ? weight_row : last, input));
    }
    if (thread.linear_thread() == 0) {
      const SharedSpan<uint64_t> barriers = Barriers(thread);
      for (uint32_t stage = 0; stage < stages; ++stage) {
        thread.InitBarrier(barriers, stage, 1);
        thread.InitBarrier(barriers, stages + stage, kConsumers * kConsumerWarps);
      }
      thread.FenceProxyAsync();
    }
    thread.SyncBlock();
  }

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const TileRows rows = this->items.RowsOfTile(thread, thread.block_idx().y, kTokens);
    if (rows.begin >= rows.end || !this->weights.Has(thread, rows.group)) {
      return;
    }
    const int64_t weight_row = this->FirstOutput(thread);
    const DeviceWeight w = this->weights.OfGroup(thread, rows.group);
    Prepare(thread, w, weight_row);
    if (thread.linear_thread() / kConsumerThreads == kConsumers) {
      if (thread.lane() == 0) {
        this->weights.WithMap(thread, rows.group,
                              [&](const GpuTileMap& map) { Copy(thread, map, rows); });
      }
      return;
    }
    const int64_t in_block = (w.row_offset + weight_row) % kFp8Block;
    const int64_t output = in_block + this->OutputOfThread(thread);
    const uint32_t second[2] = {output >= kFp8Block ? 1U : 0U,
                                output + 8 >= kFp8Block ? 1U : 0U};
    float totals[kValues] = {};
    Consume(thread, second, totals);
    this->StoreTotals(thread, rows, totals, 1.0F);
  }

 private:
  static constexpr int64_t kOutputs = Tile::kOutputs;
};

template <uint32_t kConsumers, uint32_t kTokens>
absl::Status LaunchTile(GpuStream& stream, const Fp8Tokens& x, const ProductArgs& args,
                        TensorView out) {
  return LaunchProduct<Fp8GemmKernel<kConsumers, kTokens>>(stream, x, args, out);
}

absl::Status LaunchGemm(GpuStream& stream, const Fp8Tokens& x, ProductArgs args,
                        const Fp8GemmConfig& config, TensorView out) {
  args.stages = config.stages;
  args.shared_bytes = config.shared_bytes;
  args.outputs = out.dim(1);
  const bool wide = config.consumers == 2;
  switch (config.tile_tokens) {
    case 16:
      return wide ? LaunchTile<2, 16>(stream, x, args, out)
                  : LaunchTile<1, 16>(stream, x, args, out);
    case 64:
      return LaunchTile<2, 64>(stream, x, args, out);
    default:
      return LaunchTile<2, 128>(stream, x, args, out);
  }
}

// A value each: the tree over the leaves, as soon as a right half is there.
struct SumLeavesKernel {
  static constexpr const char* kName = "SumLeavesKernel";
  static constexpr uint32_t kBlock = 256;
  DeviceRows<const float> sums;  // [leaf, row]
  DeviceRows<float> out;
  int leaves;

  TESSERA_DEVICE float Leaf(Thread& thread, int leaf, int64_t row, int64_t col) const {
    return thread.Load(sums.span, sums.Begin(leaf * out.rows + row) + col);
  }
  TESSERA_DEVICE float Pair(Thread& thread, int leaf, int64_t row, int64_t col) const {
    return Leaf(thread, leaf, row, col) + Leaf(thread, leaf + 1, row, col);
  }
  TESSERA_DEVICE float Four(Thread& thread, int leaf, int64_t row, int64_t col) const {
    return Pair(thread, leaf, row, col) + Pair(thread, leaf + 2, row, col);
  }
  TESSERA_DEVICE void operator()(Thread& thread) const {
    const int64_t stride = int64_t{thread.grid_dim().x} * kBlock;
    for (int64_t i = GlobalIndex(thread); i < out.rows * out.cols; i += stride) {
      const int64_t row = i / out.cols;
      const int64_t col = i % out.cols;
      float sum = 0;
      if (leaves == 8) {
        sum = Four(thread, 0, row, col) + Four(thread, 4, row, col);
      } else if (leaves == 4) {
        sum = Four(thread, 0, row, col);
      } else {
        sum = leaves == 2 ? Pair(thread, 0, row, col) : Leaf(thread, 0, row, col);
      }
      thread.Store(out.span, out.Begin(row) + col, sum);
    }
  }
};

}  // namespace

absl::Status Fp8Linear(GpuStream& stream, const Fp8Tokens& x, const WeightView& w,
                       const Fp8GemmConfig& config, TensorView out, int64_t leaves) {
  TESSERA_RETURN_IF_ERROR(CheckFp8Weight(w));
  TESSERA_CHECK_EQ(out.dim(1), w.rows);
  TESSERA_CHECK(leaves == 1 || w.cols % (leaves * kFp8Group) == 0);
  if (w.rows == 0) {
    return absl::OkStatus();
  }
  ProductArgs args;
  TESSERA_ASSIGN_OR_RETURN(args.weights, WeightsOfMatrix(w));
  args.items.rows = x.codes.dim(0);
  args.inputs = w.cols;
  args.leaves = leaves;
  return LaunchGemm(stream, x, args, config, out);
}

void SumLeaves(GpuStream& stream, TensorView sums, int leaves, TensorView out) {
  TESSERA_CHECK_EQ(sums.dim(0), leaves * out.dim(0));
  if (!out.empty()) {
    Launch(stream, EachValueConfig(out.num_elements(), SumLeavesKernel::kBlock),
           SumLeavesKernel{RowsOf<const float>(sums), RowsOf<float>(out), leaves});
  }
}

absl::Status Fp8GroupedLinear(GpuStream& stream, const Fp8Tokens& x,
                              const ExpertMatrices& w, const ListedItems& items,
                              const Fp8GemmConfig& config, TensorView out) {
  return LaunchGemm(stream, x, ArgsOfItems(w, items, x.codes.dim(0), config.tile_tokens),
                    config, out);
}

}  // namespace tessera::kernels::cuda
