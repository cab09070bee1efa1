// What the parts of the MLA decode kernel (mla_decode.cu) share: how a block's shared
// memory is laid out, its barriers, and which rows and heads it has.
#ifndef TESSERA_KERNELS_CUDA_MLA_MLA_DECODE_LAYOUT_CUH_
#define TESSERA_KERNELS_CUDA_MLA_MLA_DECODE_LAYOUT_CUH_

#include <cstdint>

#include "kernels/cuda/mla/mla_decode_config.h"
#include "kernels/cuda/primitives/device.cuh"
#include "kernels/cuda/primitives/device_tensor.cuh"

namespace tessera::kernels::cuda::mla {

constexpr uint32_t kConsumerThreads = 128;
constexpr uint32_t kConsumerWarps = kConsumerThreads / kWarpSize;
constexpr uint32_t kWidthBytes = static_cast<uint32_t>(kMlaWidth) * 2;
// A chunk is 64 values of each row of a tile, in lines of 128 bytes.
constexpr uint32_t kLineBytes = 128;
constexpr uint32_t kChunkBytes = kMlaTileRows * kLineBytes;
constexpr uint32_t kChunks = kWidthBytes / kLineBytes;
constexpr uint32_t kLatentChunks = kChunks - 1;
constexpr uint32_t kHalf = static_cast<uint32_t>(kMlaLatent) / 2;  // of a consumer
constexpr uint32_t kProductBytes = 32;  // of a line, that one instruction sums over
constexpr uint32_t kProductRows = 16;   // of a tile of values, the same
constexpr uint32_t kScores = kMlaTileRows / 2;  // of a thread
constexpr uint32_t kSums = kHalf / 2;
constexpr uint32_t kMaxBoxes = kMlaTileRows / 8;

static_assert(kChunks * kChunkBytes == kMlaTileBytes);

// Barriers, by their place in shared memory.
enum : uint32_t {
  kQueries = 0,                   // have come
  kScored = 1,                    // by all warps of the first consumer: keys may change
  kFull = 2,                      // of each stage: its tile has come
  kWeighed = kFull + kMlaStages,  // its weights are there
  kEmpty = kWeighed + kMlaStages,
  kBarriers = kEmpty + kMlaStages
};
static_assert(kMlaSharedBytes == (1 + kMlaStages) * kMlaTileBytes +
                                     (kMlaStages + 1) * kMlaTileHeads * 4 +
                                     kBarriers * 8);

// What a block makes.
struct Part {
  int64_t t = 0;
  uint32_t first_head = 0;
  uint32_t heads = 0;
  uint32_t split = 0;
  int64_t visible = 0;  // rows of the token
  int64_t begin = 0;    // of the split
  int64_t end = 0;

  TESSERA_DEVICE uint32_t tiles() const {
    return static_cast<uint32_t>((end - begin + kMlaTileRows - 1) / kMlaTileRows);
  }
  TESSERA_DEVICE uint32_t RowsOfTile(uint32_t tile) const {
    const int64_t left = end - begin - int64_t{tile} * kMlaTileRows;
    return left < kMlaTileRows ? static_cast<uint32_t>(left) : kMlaTileRows;
  }
};

// How many rows a token attends to.
struct RowCounts {
  DeviceRows<const int32_t> counts;
  int64_t more = 0;  // 1 where they are positions

  TESSERA_DEVICE int64_t Of(Thread& thread, int64_t t) const {
    return thread.Load(counts.span, counts.Begin(t)) + more;
  }
};

// ---- shared memory ----

TESSERA_DEVICE inline SharedSpan<uint8_t> Bytes(Thread& thread, uint32_t begin,
                                                uint32_t count) {
  return {thread.DynamicShared<uint8_t>(begin).data, count};
}
TESSERA_DEVICE inline SharedSpan<uint32_t> Words(Thread& thread, uint32_t begin,
                                                 uint32_t bytes) {
  return {thread.DynamicShared<uint32_t>(begin).data, bytes / 4};
}
// Of the queries, and of the tile of a stage.
TESSERA_DEVICE inline uint32_t QueryChunk(uint32_t chunk) { return chunk * kChunkBytes; }
TESSERA_DEVICE inline uint32_t Chunk(uint32_t stage, uint32_t chunk) {
  return (1 + stage) * kMlaTileBytes + chunk * kChunkBytes;
}
constexpr uint32_t kShrinksBegin = (1 + kMlaStages) * kMlaTileBytes;
constexpr uint32_t kTotalsBegin = kShrinksBegin + kMlaStages * kMlaTileHeads * 4;
TESSERA_DEVICE inline SharedSpan<float> Shrinks(Thread& thread) {
  return {thread.DynamicShared<float>(kShrinksBegin).data, kMlaStages * kMlaTileHeads};
}
TESSERA_DEVICE inline SharedSpan<float> Totals(Thread& thread) {
  return {thread.DynamicShared<float>(kTotalsBegin).data, kMlaTileHeads};
}
TESSERA_DEVICE inline SharedSpan<uint64_t> Barriers(Thread& thread) {
  return {thread.DynamicShared<uint64_t>(kTotalsBegin + kMlaTileHeads * 4).data,
          kBarriers};
}
TESSERA_DEVICE inline SharedSpan<int32_t> RowNumbers(Thread& thread) {
  return {thread.DynamicShared<int32_t>(kMlaSharedBytes).data, kMlaSplitRows};
}
TESSERA_DEVICE inline uint32_t Address(Thread& thread, uint32_t begin) {
  return thread.SharedAddress(thread.DynamicShared<uint8_t>(begin));
}

}  // namespace tessera::kernels::cuda::mla

#endif  // TESSERA_KERNELS_CUDA_MLA_MLA_DECODE_LAYOUT_CUH_
