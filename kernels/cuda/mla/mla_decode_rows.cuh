// BulkRows: cache rows in BF16 as the MLA decode kernel gets them: by bulk copies, of as
// many rows as lie together in a page, started by one thread.
#ifndef TESSERA_KERNELS_CUDA_MLA_MLA_DECODE_ROWS_CUH_
#define TESSERA_KERNELS_CUDA_MLA_MLA_DECODE_ROWS_CUH_

#include <cstdint>

#include "kernels/cuda/mla/mla_decode_layout.cuh"
#include "kernels/cuda/primitives/paged_rows.cuh"

namespace tessera::kernels::cuda::mla {

struct BulkRows {
  static constexpr uint32_t kSharedBytes = kMlaSharedBytes;
  static constexpr uint32_t kFullArrivals = 1;
  static constexpr bool kEndsInZeros = false;  // behind the last row may be anything

  GpuTileMap map;  // rows of bytes, page by page
  uint32_t box_rows;
  DevicePages pages;

  TESSERA_DEVICE void Prepare(Thread&, const Part&) const {}
  // Brings a tile into its stage once that is empty; by all threads of the second
  // consumer.
  TESSERA_DEVICE void Fill(Thread& thread, const Part& part, uint32_t tile) const {
    if (thread.linear_thread() == kConsumerThreads) {
      Copy(thread, part, tile);
    }
    thread.SyncWarp();
  }

 private:
  // Where the rows of a tile begin, `box_rows` at a time. Beyond the last row its
  // own box is taken again: what comes there is replaced before it counts.
  TESSERA_DEVICE void FindBoxes(Thread& thread, const Part& part, uint32_t tile,
                                int32_t (&boxes)[kMaxBoxes]) const {
    const int64_t sequence =
        thread.Load(pages.sequence_of_row.span, pages.sequence_of_row.Begin(part.t));
    const auto size = static_cast<uint32_t>(pages.block_size);
    const auto last = static_cast<uint32_t>(part.end - 1) / box_rows * box_rows;
    const auto begin = static_cast<uint32_t>(part.begin) + tile * kMlaTileRows;
    TESSERA_UNROLL
    for (uint32_t i = 0; i < kMaxBoxes; ++i) {
      if (i * box_rows < kMlaTileRows) {
        const uint32_t wanted = begin + i * box_rows;
        const uint32_t position = wanted < last ? wanted : last;
        const int32_t page =
            thread.Load(pages.block_tables.span,
                        pages.block_tables.Begin(sequence) + position / size);
        boxes[i] =
            page * static_cast<int32_t>(size) + static_cast<int32_t>(position % size);
      }
    }
  }

  // Once its stage is empty.
  TESSERA_DEVICE void Copy(Thread& thread, const Part& part, uint32_t tile) const {
    const SharedSpan<uint64_t> barriers = Barriers(thread);
    const uint32_t stage = tile % kMlaStages;
    int32_t boxes[kMaxBoxes] = {};
    FindBoxes(thread, part, tile, boxes);
    // Of the round before; in the first one the stages are empty.
    thread.WaitBarrier(barriers, kEmpty + stage, (tile / kMlaStages + 1) & 1U);
    thread.ArriveExpecting(barriers, kFull + stage, kMlaTileBytes);
    TESSERA_UNROLL
    for (uint32_t i = 0; i < kMaxBoxes; ++i) {
      const uint32_t row = i * box_rows;
      for (uint32_t chunk = 0; row < kMlaTileRows && chunk < kChunks; ++chunk) {
        thread.CopyTile(
            map, static_cast<int32_t>(chunk * kLineBytes), boxes[i],
            Bytes(thread, Chunk(stage, chunk) + row * kLineBytes, box_rows * kLineBytes),
            barriers, kFull + stage);
      }
    }
  }
};

}  // namespace tessera::kernels::cuda::mla

#endif  // TESSERA_KERNELS_CUDA_MLA_MLA_DECODE_ROWS_CUH_
