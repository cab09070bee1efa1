// ProductTile: what a block of fp8_gemm.cu and of fp4_gemm.cu share: its arguments, the
// stages that bulk copies fill, and the results. A tile is 64 or 128 outputs by 16 to 128
// tokens. A stage has 128 inputs of the weights' rows, of the tokens, swizzled, and the
// tokens' scales; a full barrier announces it.
#ifndef TESSERA_KERNELS_CUDA_PRODUCTS_PRODUCT_TILE_CUH_
#define TESSERA_KERNELS_CUDA_PRODUCTS_PRODUCT_TILE_CUH_

#include <cstdint>

#include "kernels/cuda/primitives/device_tensor.cuh"
#include "kernels/cuda/primitives/matrix_descriptor.cuh"
#include "kernels/cuda/products/tile_items.cuh"

namespace tessera::kernels::cuda {

inline constexpr uint32_t kConsumerThreads = 128;  // a warpgroup
inline constexpr uint32_t kConsumerWarps = kConsumerThreads / kWarpSize;
inline constexpr uint32_t kConsumerOutputs = 64;
inline constexpr uint32_t kBlockInputs = 128;
inline constexpr uint32_t kProductInputs = 32;  // of one instruction, also in bytes

// Where the weights of a tile come from: one matrix, or a matrix for each group.
struct TileWeights {
  GpuTileMap map;  // boxes of 64 rows
  DeviceWeight weight;
  // Of the groups; without any, the above. Group g's are at g times the stride.
  GlobalSpan<const GpuTileMap> maps;
  int64_t map_begin = 0;
  int64_t map_stride = 0;
  GlobalSpan<const uint8_t* const> places;  // of values, and of scales behind them
  int64_t values_begin = 0;
  int64_t places_stride = 0;

  TESSERA_DEVICE bool of_groups() const { return maps.size > 0; }
  // False for a group whose weights another launch has.
  TESSERA_DEVICE bool Has(Thread& thread, int64_t group) const {
    return !of_groups() ||
           thread.Load(places, values_begin + group * places_stride) != nullptr;
  }
  TESSERA_DEVICE DeviceWeight OfGroup(Thread& thread, int64_t group) const {
    DeviceWeight own = weight;
    if (of_groups()) {
      own.scales.data = thread.Load(places, values_begin + 1 + group * places_stride);
    }
    return own;
  }
  // Calls use(map) with the map of the group's weights.
  template <typename Use>
  TESSERA_DEVICE void WithMap(Thread& thread, int64_t group, Use use) const {
    if (of_groups()) {
      use(thread.AcquireTileMap(maps, map_begin + group * map_stride));
    } else {
      use(map);
    }
  }
};

// The stage of a block of inputs, and whether it is used for the first time.
struct StageCursor {
  uint32_t stage = 0;
  uint32_t round = 0;

  TESSERA_DEVICE void Advance(uint32_t stages) {
    if (++stage == stages) {
      stage = 0;
      ++round;
    }
  }
};

// kRowBytes: of 128 inputs of a row of weights. kBefore: bytes of shared memory that lie
// before the stages, a multiple of 1024.
template <uint32_t kConsumers, uint32_t kTokens, uint32_t kRowBytes, uint32_t kBefore>
struct ProductTile {
  static constexpr uint32_t kOutputs = kConsumers * kConsumerOutputs;
  static constexpr uint32_t kWeightBytes = kOutputs * kRowBytes;
  static constexpr uint32_t kTokenBytes = kTokens * kBlockInputs;
  static constexpr uint32_t kScaleBytes = kTokens * sizeof(float);
  static constexpr uint32_t kScalePitch = kScaleBytes < 128 ? 128 : kScaleBytes;
  static constexpr uint32_t kStageBytes = kWeightBytes + kTokenBytes + kScalePitch;
  static constexpr uint32_t kCopiedBytes = kWeightBytes + kTokenBytes + kScaleBytes;
  static constexpr uint32_t kValues = kTokens / 2;  // results of a thread

  TileWeights weights;
  GpuTileMap tokens;
  GpuTileMap scales;
  DeviceRows<float> out;  // [leaf, row]
  TileItems items;
  uint32_t blocks;  // of inputs, of one leaf
  uint32_t stages;

  // ---- shared memory ----

  static_assert(kBefore % 1024 == 0 && kWeightBytes % 1024 == 0 &&
                kTokenBytes % 1024 == 0);
  TESSERA_DEVICE SharedSpan<uint8_t> WeightTile(Thread& thread, uint32_t stage) const {
    return {thread.DynamicShared<uint8_t>(kBefore + stage * kWeightBytes).data,
            kWeightBytes};
  }
  TESSERA_DEVICE SharedSpan<uint8_t> TokenTile(Thread& thread, uint32_t stage) const {
    const uint32_t begin = kBefore + stages * kWeightBytes + stage * kTokenBytes;
    return {thread.DynamicShared<uint8_t>(begin).data, kTokenBytes};
  }
  TESSERA_DEVICE uint32_t ScalesBegin(uint32_t stage) const {
    return kBefore + stages * (kWeightBytes + kTokenBytes) + stage * kScalePitch;
  }
  TESSERA_DEVICE SharedSpan<float> TokenScales(Thread& thread, uint32_t stage) const {
    return {thread.DynamicShared<float>(ScalesBegin(stage)).data, kTokens};
  }
  TESSERA_DEVICE uint32_t StagesEnd() const { return kBefore + stages * kStageBytes; }

  // ---- a tile ----

  // And the first row of its weights.
  TESSERA_DEVICE int64_t FirstOutput(Thread& thread) const {
    return int64_t{thread.block_idx().x} * kOutputs;
  }
  // The first block of the tile's inputs.
  TESSERA_DEVICE uint32_t FirstBlock(Thread& thread) const {
    return thread.block_idx().z * blocks;
  }

  // Starts the copies of one block of inputs into a stage; by one thread.
  TESSERA_DEVICE void CopyStage(Thread& thread, const GpuTileMap& map,
                                const TileRows& rows, uint32_t block, uint32_t stage,
                                SharedSpan<uint64_t> barriers) const {
    thread.ArriveExpecting(barriers, stage, kCopiedBytes);
    const uint32_t in_row = FirstBlock(thread) + block;
    const auto weight_row = static_cast<int32_t>(FirstOutput(thread));
    const auto first = static_cast<int32_t>(rows.begin);
    const SharedSpan<uint8_t> weight_tile = WeightTile(thread, stage);
    TESSERA_UNROLL
    for (uint32_t i = 0; i < kConsumers; ++i) {
      constexpr uint32_t kBytes = kConsumerOutputs * kRowBytes;
      thread.CopyTile(map, static_cast<int32_t>(in_row * kRowBytes),
                      weight_row + static_cast<int32_t>(i * kConsumerOutputs),
                      {weight_tile.data + i * kBytes, kBytes}, barriers, stage);
    }
    thread.CopyTile(tokens, static_cast<int32_t>(in_row * kBlockInputs), first,
                    TokenTile(thread, stage), barriers, stage);
    thread.CopyTile(scales, first, static_cast<int32_t>(in_row),
                    {thread.DynamicShared<uint8_t>(ScalesBegin(stage)).data, kScaleBytes},
                    barriers, stage);
  }

  // The scales of the two tokens that values i to i + 3 of this thread belong to.
  TESSERA_DEVICE Vector<float, 2> ScalesOf(Thread& thread, SharedSpan<float> token_scales,
                                           uint32_t i) const {
    return thread.template LoadVector<2>(token_scales, 2 * i + 2 * (thread.lane() % 4));
  }
  // Of values i, i + 1, i + 4, …: the output in the tile; the others are 8 further.
  TESSERA_DEVICE uint32_t OutputOfThread(Thread& thread) const {
    return 16 * (thread.linear_thread() / kWarpSize) + thread.lane() / 4;
  }

  TESSERA_DEVICE void StoreTotals(Thread& thread, const TileRows& rows,
                                  const float (&totals)[kValues], float unit) const {
    const int64_t output = FirstOutput(thread) + OutputOfThread(thread);
    const int64_t leaf_begin = int64_t{thread.block_idx().z} * items.rows;
    TESSERA_UNROLL
    for (uint32_t i = 0; i < kValues; ++i) {
      const int64_t row = rows.begin + i / 4 * 8 + 2 * (thread.lane() % 4) + i % 2;
      const int64_t column = output + i / 2 % 2 * 8;
      if (row < rows.end && column < out.cols) {
        thread.Store(out.span, out.Begin(leaf_begin + row) + column, unit * totals[i]);
      }
    }
  }
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRODUCTS_PRODUCT_TILE_CUH_
