// FP4 products on the tensor cores: tiles and stages are product_tile.cuh's, with 64
// bytes for 128 inputs of a row of weights. A warpgroup for each 64 outputs consumes; one
// more expands the codes of a stage into one of two tiles of e4m3, swizzled, and starts
// the copies.
//
// A group of 32 weights with a scale is what one product sums over. So each product
// begins at zero, and its sums times the row's scale are added in registers; after four
// of them the sum of the block times the token's scale is added to the totals. Scales
// could be folded into the exponents of e4m3 only where those of a block's four groups
// differ by no more than 2^14, which no format promises; this way every scale is exact.
//
// Codes: an e2m1 code s eem becomes the e4m3 code s 00ee m00, which is its value / 64 for
// zero and denormals as for all others; the results are multiplied by 64. Eight codes are
// a word; seven operations spread them over two, two byte selections put them in order.
//
// Who waits for whom: a stage is full by its bytes; a tile is expanded by 4 warps, free
// again by 4 of each consumer. An expander that waits until the tile of two blocks before
// is free thereby knows that their stage is, too, and one of its threads fills that
// again: all but two stages are in flight.
//
// Shared memory: two expanded tiles, the stages, the E8M0 scales of the tile's rows,
// which are read once, the barriers. Registers: four values for each result of a thread
// (two products in flight, the block's sum, the total), 16 to 128, and some 30; no tile
// of 128 tokens, which would need 256.
//
// Bytes: 17/32 of a byte for each weight. Instructions of an SM for 128 outputs x 64
// tokens x 128 inputs: 5 multiply-adds for each result, 1280 of warps, 40 more of each
// consumer's warp for scales and barriers, 45 of an expander's for 32 runs of codes: 1280
// + 320 + 720 on four schedulers, 580 clocks, where the tensor cores take 256. So prefill
// can have at most 44 % of them, and is predicted at a third, by L2 as FP8 is: 128 x 64
// has the FLOPs a byte of FP8's 128 x 128. Decode: 8.5 KiB of weights a block and SM at
// 3.35 TB/s take 600 clocks, against 340 of 16 tokens: HBM.
#include "kernels/cuda/primitives/weight_decode.cuh"
#include "kernels/cuda/products/fp4_gemm.h"
#include "kernels/cuda/products/product_launch.cuh"
#include "kernels/cuda/products/product_tile.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr uint32_t kFp4RowBytes = kBlockInputs / 2;
constexpr uint32_t kRuns = kBlockInputs / kProductInputs;  // groups of a block

// Eight codes of e2m1, the first in the lowest bits, as e4m3 of 1/64 of their values.
TESSERA_DEVICE inline Vector<uint32_t, 2> ExpandCodes(Thread& thread, uint32_t codes) {
  constexpr uint32_t kSigns = 0x80808080U;
  constexpr uint32_t kMagnitudes = 0x1c1c1c1cU;
  const uint32_t even = (codes << 2 & kMagnitudes) | (codes << 4 & kSigns);
  const uint32_t odd = (codes >> 2 & kMagnitudes) | (codes & kSigns);
  return {
      {thread.SelectBytes(even, odd, 0x5140U), thread.SelectBytes(even, odd, 0x7362U)}};
}

template <uint32_t kConsumers, uint32_t kTokens>
struct Fp4GemmKernel
    : ProductTile<kConsumers, kTokens, kFp4RowBytes,
                  kFp4Expanded * kConsumers * kConsumerOutputs * kBlockInputs> {
  using Tile = ProductTile<kConsumers, kTokens, kFp4RowBytes,
                           kFp4Expanded * kConsumers * kConsumerOutputs * kBlockInputs>;
  static constexpr const char* kName = "Fp4GemmKernel";
  static constexpr uint32_t kMaxThreads = (kConsumers + 1) * kConsumerThreads;
  static constexpr uint32_t kValues = Tile::kValues;
  static constexpr uint32_t kExpandedBytes = Tile::kOutputs * kBlockInputs;
  static_assert(Tile::kStageBytes == Fp4StageBytes(kConsumers, kTokens));

  using Tile::blocks;
  using Tile::stages;

  // ---- shared memory ----

  TESSERA_DEVICE SharedSpan<uint8_t> Expanded(Thread& thread, uint32_t tile) const {
    return {thread.DynamicShared<uint8_t>(tile * kExpandedBytes).data, kExpandedBytes};
  }
  TESSERA_DEVICE uint32_t ScalesBytes() const {
    return Tile::kOutputs * Fp4ScalePitch(blocks);
  }
  // Four E8M0 bytes for each row and block.
  TESSERA_DEVICE SharedSpan<uint32_t> WeightScales(Thread& thread) const {
    return {thread.DynamicShared<uint32_t>(this->StagesEnd()).data, ScalesBytes() / 4};
  }
  // A stage is full; then an expanded tile is made; then it is free.
  TESSERA_DEVICE SharedSpan<uint64_t> Barriers(Thread& thread) const {
    return {thread.DynamicShared<uint64_t>(this->StagesEnd() + ScalesBytes()).data,
            int64_t{stages} + 2 * kFp4Expanded};
  }
  TESSERA_DEVICE uint32_t Made(uint32_t tile) const { return stages + tile; }
  TESSERA_DEVICE uint32_t Free(uint32_t tile) const {
    return stages + kFp4Expanded + tile;
  }
  // By a warp that has done what it had to.
  TESSERA_DEVICE void Arrive(Thread& thread, uint32_t barrier) const {
    thread.SyncWarp();
    if (thread.lane() == 0) {
      thread.ArriveBarrier(Barriers(thread), barrier);
    }
  }
  // Of the use of a tile or stage by block `block`, of those that go round `count`.
  TESSERA_DEVICE static uint32_t Parity(uint32_t block, uint32_t count) {
    return block / count & 1U;
  }

  // ---- the expanding warpgroup ----

  TESSERA_DEVICE bool IsCopier(Thread& thread) const {
    return thread.linear_thread() == kConsumers * kConsumerThreads;
  }

  // Neighbouring lanes have neighbouring groups of 32 codes, of which four are a row.
  TESSERA_DEVICE void ExpandBlock(Thread& thread, uint32_t stage, uint32_t tile) const {
    const SharedSpan<uint8_t> packed = this->WeightTile(thread, stage);
    const SharedSpan<uint8_t> expanded = Expanded(thread, tile);
    const SharedSpan<const uint32_t> from = {
        reinterpret_cast<const uint32_t*>(packed.data), packed.size / 4};
    const SharedSpan<uint32_t> to = {reinterpret_cast<uint32_t*>(expanded.data),
                                     expanded.size / 4};
    const uint32_t me = thread.linear_thread() % kConsumerThreads;
    TESSERA_UNROLL
    for (uint32_t i = 0; i < Tile::kOutputs * kRuns; i += kConsumerThreads) {
      const uint32_t run = i + me;
      const Vector<uint32_t, 4> codes = thread.template LoadVector<4>(from, 4 * run);
      TESSERA_UNROLL
      for (uint32_t half = 0; half < 2; ++half) {
        const Vector<uint32_t, 2> first = ExpandCodes(thread, codes.values[2 * half]);
        const Vector<uint32_t, 2> second =
            ExpandCodes(thread, codes.values[2 * half + 1]);
        const Vector<uint32_t, 4> piece = {
            {first.values[0], first.values[1], second.values[0], second.values[1]}};
        thread.StoreVector(to, SwizzledByte(32 * run + 16 * half) / 4, piece);
      }
    }
  }

  TESSERA_DEVICE void Expand(Thread& thread, const GpuTileMap& map,
                             const TileRows& rows) const {
    const SharedSpan<uint64_t> barriers = Barriers(thread);
    for (uint32_t block = 0; block < blocks; ++block) {
      const uint32_t tile = block % kFp4Expanded;
      if (block >= kFp4Expanded) {
        const uint32_t before = block - kFp4Expanded;
        thread.WaitBarrier(barriers, Free(tile), Parity(before, kFp4Expanded));
        if (IsCopier(thread) && before + stages < blocks) {
          this->CopyStage(thread, map, rows, before + stages, before % stages, barriers);
        }
      }
      thread.WaitBarrier(barriers, block % stages, Parity(block, stages));
      ExpandBlock(thread, block % stages, tile);
      thread.FenceProxyAsync();
      Arrive(thread, Made(tile));
    }
  }

  // ---- a consumer ----

  // The scales of this thread's two rows for one block.
  struct RowScales {
    float of_runs[2][kRuns];
  };
  TESSERA_DEVICE RowScales LoadScales(Thread& thread, uint32_t block) const {
    RowScales row_scales;
    TESSERA_UNROLL
    for (uint32_t i = 0; i < 2; ++i) {
      const uint32_t row = this->OutputOfThread(thread) + 8 * i;
      const uint32_t codes =
          thread.Load(WeightScales(thread), row * (Fp4ScalePitch(blocks) / 4) + block);
      TESSERA_UNROLL
      for (uint32_t run = 0; run < kRuns; ++run) {
        row_scales.of_runs[i][run] = DecodeE8M0(codes >> (8 * run) & 0xffU);
      }
    }
    return row_scales;
  }

  TESSERA_DEVICE void StartRun(Thread& thread, uint64_t a, uint64_t b, uint32_t run,
                               float (&sums)[kValues]) const {
    thread.BeginProducts(sums);
    thread.MultiplyE4M3(sums, Advanced(a, run * kProductInputs),
                        Advanced(b, run * kProductInputs), false);
    thread.CommitProducts();
  }

  // One block of inputs, without the tokens' scales: the next product runs while the sums
  // of the one before are scaled.
  TESSERA_DEVICE void MultiplyBlock(Thread& thread, uint32_t stage, uint32_t tile,
                                    const RowScales& row_scales,
                                    float (&of_block)[kValues]) const {
    const uint32_t consumer = thread.linear_thread() / kConsumerThreads;
    const uint64_t a = SwizzledTile(thread.SharedAddress(Expanded(thread, tile)) +
                                    consumer * kConsumerOutputs * kBlockInputs);
    const uint64_t b = SwizzledTile(thread.SharedAddress(this->TokenTile(thread, stage)));
    float sums[2][kValues];  // products set them
    StartRun(thread, a, b, 0, sums[0]);
    TESSERA_UNROLL
    for (uint32_t run = 0; run < kRuns; ++run) {
      if (run + 1 < kRuns) {
        StartRun(thread, a, b, run + 1, sums[(run + 1) % 2]);
        thread.template WaitProducts<1>(sums[run % 2]);
      } else {
        thread.template WaitProducts<0>(sums[run % 2]);
      }
      TESSERA_UNROLL
      for (uint32_t i = 0; i < kValues; ++i) {
        of_block[i] =
            fmaf(sums[run % 2][i], row_scales.of_runs[i / 2 % 2][run], of_block[i]);
      }
    }
  }

  TESSERA_DEVICE void Consume(Thread& thread, float (&totals)[kValues]) const {
    const SharedSpan<uint64_t> barriers = Barriers(thread);
    for (uint32_t block = 0; block < blocks; ++block) {
      const uint32_t stage = block % stages;
      const uint32_t tile = block % kFp4Expanded;
      const RowScales row_scales = LoadScales(thread, block);
      thread.WaitBarrier(barriers, stage, Parity(block, stages));
      thread.WaitBarrier(barriers, Made(tile), Parity(block, kFp4Expanded));
      float of_block[kValues] = {};
      MultiplyBlock(thread, stage, tile, row_scales, of_block);
      const SharedSpan<float> token_scales = this->TokenScales(thread, stage);
      TESSERA_UNROLL
      for (uint32_t i = 0; i < kValues; i += 4) {  // 2 outputs of 2 tokens
        const Vector<float, 2> pair = this->ScalesOf(thread, token_scales, i);
        TESSERA_UNROLL
        for (uint32_t j = 0; j < 4; ++j) {
          totals[i + j] = fmaf(of_block[i + j], pair.values[j % 2], totals[i + j]);
        }
      }
      Arrive(thread, Free(tile));
    }
  }

  // ---- before the first block ----

  // The copying thread starts as soon as its barriers are there.
  TESSERA_DEVICE void StartCopies(Thread& thread, const GpuTileMap& map,
                                  const TileRows& rows) const {
    const SharedSpan<uint64_t> barriers = Barriers(thread);
    for (uint32_t stage = 0; stage < stages; ++stage) {
      thread.InitBarrier(barriers, stage, 1);
    }
    for (uint32_t tile = 0; tile < kFp4Expanded; ++tile) {
      thread.InitBarrier(barriers, Made(tile), kConsumerWarps);
      thread.InitBarrier(barriers, Free(tile), kConsumers * kConsumerWarps);
    }
    thread.FenceProxyAsync();
    for (uint32_t block = 0; block < stages && block < blocks; ++block) {
      this->CopyStage(thread, map, rows, block, block, barriers);
    }
  }

  // Bytes at a time, since rows of scales begin anywhere; zeros behind the matrix, where
  // codes are zeros, too.
  TESSERA_DEVICE void LoadWeightScales(Thread& thread, const DeviceWeight& w,
                                       int64_t weight_row) const {
    const int64_t groups_of_row = w.cols / kProductInputs;
    const SharedSpan<uint32_t> to = WeightScales(thread);
    for (uint32_t i = thread.linear_thread(); i < Tile::kOutputs * blocks;
         i += kMaxThreads) {
      const uint32_t row = i / blocks;
      const uint32_t block = i % blocks;
      const int64_t begin = (w.row_offset + weight_row + row) * w.scale_stride +
                            w.col_offset / kProductInputs;
      uint32_t codes = 0;
      TESSERA_UNROLL
      for (uint32_t run = 0; run < kRuns; ++run) {
        const int64_t group = int64_t{block} * kRuns + run;
        if (weight_row + row < w.rows && group < groups_of_row) {
          codes |= uint32_t{thread.Load(w.scales, begin + group)} << (8 * run);
        }
      }
      thread.Store(to, row * (Fp4ScalePitch(blocks) / 4) + block, codes);
    }
  }

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const TileRows rows = this->items.RowsOfTile(thread, thread.block_idx().y, kTokens);
    if (rows.begin >= rows.end || !this->weights.Has(thread, rows.group)) {
      return;
    }
    if (IsCopier(thread)) {
      this->weights.WithMap(thread, rows.group, [&](const GpuTileMap& map) {
        StartCopies(thread, map, rows);
      });
    }
    LoadWeightScales(thread, this->weights.OfGroup(thread, rows.group),
                     this->FirstOutput(thread));
    thread.SyncBlock();
    if (thread.linear_thread() / kConsumerThreads == kConsumers) {
      this->weights.WithMap(thread, rows.group,
                            [&](const GpuTileMap& map) { Expand(thread, map, rows); });
      return;
    }
    float totals[kValues] = {};
    Consume(thread, totals);
    this->StoreTotals(thread, rows, totals, kFp4CodeUnit);
  }
};

}  // namespace

absl::Status Fp4GroupedLinear(GpuStream& stream, const Fp8Tokens& x,
                              const ExpertMatrices& w, const ListedItems& items,
                              const Fp4GemmConfig& config, TensorView out) {
  TESSERA_CHECK_LE(kFp4Expanded, config.stages);
  ProductArgs args = ArgsOfItems(w, items, x.codes.dim(0), config.tile_tokens);
  TESSERA_CHECK_EQ(args.inputs % kProductInputs, 0);
  args.outputs = out.dim(1);
  args.stages = config.stages;
  args.shared_bytes = config.shared_bytes;
  if (config.tile_tokens == 64) {
    return LaunchProduct<Fp4GemmKernel<2, 64>>(stream, x, args, out);
  }
  return config.consumers == 2
             ? LaunchProduct<Fp4GemmKernel<2, 16>>(stream, x, args, out)
             : LaunchProduct<Fp4GemmKernel<1, 16>>(stream, x, args, out);
}

}  // namespace tessera::kernels::cuda
