// PackedRows: cache rows of FP8 codes as the MLA decode kernel gets them, all that a
// token sees or those that it selected. A row is 512 e4m3 codes, four float32 scales of
// 128 codes each, and 64 BF16 rope keys: 656 bytes (row_format.h). The second consumer's
// threads read it and leave code times scale, in float32, as BF16 where a bulk copy
// would.
//
// Eight lanes have a row, a warp 16 rows of a tile in four passes: 24 loads of 16 bytes a
// thread. Bound: the conversion, some three instructions a value, beside the scores of
// the tile before.
#ifndef TESSERA_KERNELS_CUDA_MLA_MLA_PACKED_ROWS_CUH_
#define TESSERA_KERNELS_CUDA_MLA_MLA_PACKED_ROWS_CUH_

#include <cstdint>

#include "kernels/cuda/mla/mla_decode_layout.cuh"
#include "kernels/cuda/primitives/matrix_descriptor.cuh"
#include "kernels/cuda/primitives/paged_rows.cuh"
#include "kernels/cuda/primitives/weight_decode.cuh"

namespace tessera::kernels::cuda::mla {

struct PackedRows {
  static constexpr uint32_t kSharedBytes = kMlaPackedSharedBytes;
  static constexpr uint32_t kFullArrivals = kConsumerWarps;
  static constexpr bool kEndsInZeros = true;  // behind the last row

  static constexpr uint32_t kLanes = 8;  // of a row
  static constexpr uint32_t kWarpRows = kMlaTileRows / kConsumerWarps;
  static constexpr uint32_t kPasses = kWarpRows / (kWarpSize / kLanes);
  static constexpr uint32_t kTogether = 2;  // rows of a lane whose loads are in flight
  static constexpr uint32_t kGroups = 4;    // of 128 codes
  static constexpr uint32_t kScalesBegin = 128;  // words of a row
  static constexpr uint32_t kRopeBegin = 132;

  GlobalSpan<const uint32_t> words;  // of all pages
  int64_t row_words;                 // from a row to the next
  DevicePages pages;
  bool selects;
  DeviceRows<const int32_t> selected;  // [t, topk], where it selects

  // Where the rows of the part lie, counted through all pages: found once and by all
  // threads, since each costs two loads one after the other.
  TESSERA_DEVICE void Prepare(Thread& thread, const Part& part) const {
    const SharedSpan<int32_t> numbers = RowNumbers(thread);
    for (int64_t entry = part.begin + thread.linear_thread(); entry < part.end;
         entry += kMlaThreads) {
      const int64_t position =
          selects ? thread.Load(selected.span, selected.Begin(part.t) + entry) : entry;
      thread.Store(numbers, entry - part.begin,
                   static_cast<int32_t>(pages.RowOf(thread, part.t, position)));
    }
  }

  // Brings a tile into its stage once that is empty; by all threads of the second
  // consumer.
  TESSERA_DEVICE void Fill(Thread& thread, const Part& part, uint32_t tile) const {
    const SharedSpan<uint64_t> barriers = Barriers(thread);
    const uint32_t stage = tile % kMlaStages;
    const uint32_t warp = thread.linear_thread() / kWarpSize % kConsumerWarps;
    const uint32_t first = warp * kWarpRows + thread.lane() / kLanes;
    const uint32_t count = part.RowsOfTile(tile);
    // Of the round before; in the first one the stages are empty.
    thread.WaitBarrier(barriers, kEmpty + stage, (tile / kMlaStages + 1) & 1U);
    TESSERA_UNROLL
    for (uint32_t pass = 0; pass < kPasses; pass += kTogether) {
      PackedRow loaded[kTogether];
      TESSERA_UNROLL
      for (uint32_t i = 0; i < kTogether; ++i) {
        const uint32_t row = first + (pass + i) * (kWarpSize / kLanes);
        if (row < count) {
          LoadRow(thread, tile * kMlaTileRows + row, loaded[i]);
        }
      }
      TESSERA_UNROLL
      for (uint32_t i = 0; i < kTogether; ++i) {
        const uint32_t row = first + (pass + i) * (kWarpSize / kLanes);
        if (row < count) {
          Convert(thread, stage, row, loaded[i]);
        } else {
          Clear(thread, stage, row);
        }
      }
    }
    thread.FenceProxyAsync();
    thread.SyncWarp();
    if (thread.lane() == 0) {
      thread.ArriveBarrier(barriers, kFull + stage);
    }
  }

 private:
  // What a lane has of a row.
  struct PackedRow {
    Vector<uint32_t, 4> codes[kGroups];
    Vector<uint32_t, 4> scales;
    Vector<uint32_t, 4> rope;
  };

  // Piece `piece` of 16 bytes of a row of the tile.
  TESSERA_DEVICE static void StorePiece(Thread& thread, uint32_t stage, uint32_t row,
                                        uint32_t piece,
                                        const Vector<uint32_t, 4>& value) {
    constexpr uint32_t kPieces = kLineBytes / 16;
    const uint32_t at = SwizzledByte(row * kLineBytes + piece % kPieces * 16);
    thread.StoreVector(Words(thread, Chunk(stage, piece / kPieces), kChunkBytes), at / 4,
                       value);
  }

  TESSERA_DEVICE static void Clear(Thread& thread, uint32_t stage, uint32_t row) {
    for (uint32_t chunk = 0; chunk < kChunks; ++chunk) {
      StorePiece(thread, stage, row, chunk * kLanes + thread.lane() % kLanes, {});
    }
  }

  // Eight codes in two words.
  TESSERA_DEVICE static Vector<uint32_t, 4> ToBF16(Thread& thread, uint32_t first,
                                                   uint32_t second, float scale) {
    const uint32_t pairs[4] = {first, first >> 16, second, second >> 16};
    Vector<uint32_t, 4> result;
    TESSERA_UNROLL
    for (uint32_t i = 0; i < 4; ++i) {
      float values[2];
      thread.UnpackE4M3(pairs[i], values);
      result.values[i] = thread.PackBF16(values[0] * scale, values[1] * scale);
    }
    return result;
  }

  TESSERA_DEVICE void LoadRow(Thread& thread, uint32_t i, PackedRow& row) const {
    const uint32_t lane = thread.lane() % kLanes;
    const int64_t begin = thread.Load(RowNumbers(thread), i) * row_words;
    TESSERA_UNROLL
    for (uint32_t group = 0; group < kGroups; ++group) {
      row.codes[group] =
          thread.template LoadVector<4>(words, begin + 4 * (group * kLanes + lane));
    }
    row.scales = thread.template LoadVector<4>(words, begin + kScalesBegin);
    row.rope = thread.template LoadVector<4>(words, begin + kRopeBegin + 4 * lane);
  }

  TESSERA_DEVICE static void Convert(Thread& thread, uint32_t stage, uint32_t row,
                                     const PackedRow& from) {
    const uint32_t lane = thread.lane() % kLanes;
    TESSERA_UNROLL
    for (uint32_t group = 0; group < kGroups; ++group) {
      const float scale = FloatOfBits(from.scales.values[group]);
      const uint32_t piece = 2 * (group * kLanes + lane);
      const auto& of = from.codes[group].values;
      StorePiece(thread, stage, row, piece, ToBF16(thread, of[0], of[1], scale));
      StorePiece(thread, stage, row, piece + 1, ToBF16(thread, of[2], of[3], scale));
    }
    StorePiece(thread, stage, row, kLatentChunks * kLanes + lane, from.rope);
  }
};

}  // namespace tessera::kernels::cuda::mla

#endif  // TESSERA_KERNELS_CUDA_MLA_MLA_PACKED_ROWS_CUH_
