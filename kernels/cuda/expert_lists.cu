// Lists of experts' items by a stable counting sort, in one launch of one block: the
// lists of a decode step are some thousand slots, and a second launch would cost more
// than other blocks could save. Longer lists take the block longer, and no more.
//
//   count    a thread a slot: atomics on the counts of the local experts
//   offsets  the first warp: counts become where each expert's items begin
//   place    a tile of slots after the other; a warp has the experts of its residue class
//            and takes the tile's slots in order, 32 at a time: lanes whose slots have
//            one expert take places in the order of their lanes
//
// So no place depends on the order of threads. Shared memory: 4 bytes a local expert, and
// the tile. A warp reads all slots, of which one in 32 is its own: 4 bytes and a vote a
// slot, some 2 us for 1024 slots by instructions alone (not measured). Exact.
#include <cstdint>

#include "common/check.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/primitives/device_tensor.cuh"
#include "kernels/cuda/primitives/expert_values.cuh"

namespace tessera::kernels::cuda {
namespace {

constexpr uint32_t kBlock = 1024;
constexpr int32_t kWarps = 32;
static_assert(kBlock == kWarps * kWarpSize);
// Slots whose experts lie in shared memory: 16 KiB, as much as the most experts take.
constexpr int64_t kTile = 4096;
static_assert(4 * (kTile + kMaxRoutedExperts) <= 48 * 1024);

// Of a word: the number of its bits, and the place of the lowest of them, of which there
// is one.
TESSERA_DEVICE inline uint32_t CountBits(uint32_t bits) {
  bits -= bits >> 1 & 0x55555555U;
  bits = (bits & 0x33333333U) + (bits >> 2 & 0x33333333U);
  return ((bits + (bits >> 4)) & 0x0f0f0f0fU) * 0x01010101U >> 24;
}
TESSERA_DEVICE inline uint32_t LowestBit(uint32_t bits) {
  return CountBits((bits & -bits) - 1U);
}

struct ListExpertItemsKernel {
  static constexpr const char* kName = "ListExpertItemsKernel";
  [[maybe_unused]] static constexpr uint32_t kMaxThreads = kBlock;
  ExpertValues local;
  DeviceRows<const float> weights;  // without rows: none
  DeviceRows<int32_t> item_offsets;
  DeviceRows<int32_t> row_of_item;
  DeviceRows<int32_t> row_of_slot;
  DeviceRows<float> item_weights;

  TESSERA_DEVICE void StoreItem(Thread& thread, int64_t slot, int32_t item) const {
    const int64_t row = slot / row_of_slot.cols;
    const int64_t col = slot % row_of_slot.cols;
    thread.Store(row_of_slot.span, row_of_slot.Begin(row) + col, item);
    if (item < 0) {
      return;
    }
    thread.Store(row_of_item.span, row_of_item.Begin(item), static_cast<int32_t>(row));
    if (weights.rows > 0) {
      thread.Store(item_weights.span, item_weights.Begin(item),
                   thread.Load(weights.span, weights.Begin(row) + col));
    }
  }

  // Slots without a local expert are done here, and the first tile is filled.
  TESSERA_DEVICE void Count(Thread& thread, SharedSpan<int32_t> counts,
                            SharedSpan<int32_t> tile) const {
    for (int64_t i = thread.linear_thread(); i < counts.size; i += kBlock) {
      thread.Store(counts, i, 0);
    }
    thread.SyncBlock();
    for (int64_t slot = thread.linear_thread(); slot < local.num_slots();
         slot += kBlock) {
      const int32_t expert = local.Of(thread, slot);
      if (slot < kTile) {
        thread.Store(tile, slot, expert);
      }
      if (expert >= 0) {
        thread.AtomicAdd(counts, expert, 1);
      } else {
        local.CheckId(thread, slot);
        StoreItem(thread, slot, -1);
      }
    }
    thread.SyncBlock();
  }

  // By the first warp, 32 counts at a time: each becomes the sum of those before it.
  TESSERA_DEVICE void Offset(Thread& thread, SharedSpan<int32_t> counts) const {
    int32_t before = 0;
    for (int64_t first = 0; first < counts.size; first += kWarpSize) {
      const int64_t i = first + thread.lane();
      const int32_t count = i < counts.size ? thread.Load(counts, i) : 0;
      int32_t sum = count;  // of the lanes up to this one
      for (uint32_t distance = 1; distance < kWarpSize; distance *= 2) {
        const int32_t lower = thread.Shuffle(sum, thread.lane() - distance);
        sum += thread.lane() >= distance ? lower : 0;
      }
      if (i < counts.size) {
        thread.Store(counts, i, before + sum - count);
        thread.Store(item_offsets.span, item_offsets.Begin(i), before + sum - count);
      }
      before += thread.Shuffle(sum, kWarpSize - 1);
    }
    if (thread.lane() == 0) {
      thread.Store(item_offsets.span, item_offsets.Begin(counts.size), before);
    }
  }

  // The tile's slots of this warp's experts, from slot `first` of all on.
  TESSERA_DEVICE void Place(Thread& thread, int64_t first, SharedSpan<int32_t> next,
                            SharedSpan<int32_t> tile) const {
    const auto warp = static_cast<int32_t>(thread.linear_thread() / kWarpSize);
    const uint32_t before = (1U << thread.lane()) - 1U;
    const int64_t left = local.num_slots() - first;
    const int64_t count = left < kTile ? left : kTile;
    for (int64_t at = 0; at < count; at += kWarpSize) {
      const int64_t i = at + thread.lane();
      const int32_t expert = i < count ? thread.Load(tile, i) : -1;
      uint32_t waiting = thread.Ballot(expert >= 0 && expert % kWarps == warp);
      while (waiting != 0) {
        const int32_t chosen = thread.Shuffle(expert, LowestBit(waiting));
        const uint32_t peers = thread.Ballot(expert == chosen);
        const int32_t item = thread.Load(next, chosen);
        thread.SyncWarp();  // all have read
        if (expert == chosen) {
          StoreItem(thread, first + i,
                    item + static_cast<int32_t>(CountBits(peers & before)));
        }
        if (thread.lane() == 0) {
          thread.Store(next, chosen, item + static_cast<int32_t>(CountBits(peers)));
        }
        thread.SyncWarp();
        waiting &= ~peers;
      }
    }
  }

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const auto words = thread.DynamicShared<int32_t>();
    const SharedSpan<int32_t> tile = {words.data, kTile};
    const SharedSpan<int32_t> counts = {words.data + kTile, item_offsets.rows - 1};
    Count(thread, counts, tile);
    if (thread.linear_thread() < kWarpSize) {
      Offset(thread, counts);
    }
    thread.SyncBlock();
    for (int64_t first = 0; first < local.num_slots(); first += kTile) {
      if (first > 0) {
        thread.SyncBlock();  // all are done with the tile before
        for (int64_t i = thread.linear_thread();
             i < kTile && first + i < local.num_slots(); i += kBlock) {
          thread.Store(tile, i, local.Of(thread, first + i));
        }
        thread.SyncBlock();
      }
      Place(thread, first, counts, tile);
    }
  }
};

struct CountExpertsKernel {
  static constexpr const char* kName = "CountExpertsKernel";
  [[maybe_unused]] static constexpr uint32_t kMaxThreads = kBlock;
  DeviceRows<const int32_t> expert_ids;
  DeviceRows<int32_t> counts;

  TESSERA_DEVICE void operator()(Thread& thread) const {
    const auto sums = thread.DynamicShared<int32_t>();
    for (int64_t i = thread.linear_thread(); i < counts.rows; i += kBlock) {
      thread.Store(sums, i, 0);
    }
    thread.SyncBlock();
    for (int64_t slot = thread.linear_thread(); slot < expert_ids.rows * expert_ids.cols;
         slot += kBlock) {
      const int32_t id =
          thread.Load(expert_ids.span,
                      expert_ids.Begin(slot / expert_ids.cols) + slot % expert_ids.cols);
      if (id >= 0 && id < counts.rows) {
        thread.AtomicAdd(sums, id, 1);
      }
    }
    thread.SyncBlock();
    for (int64_t i = thread.linear_thread(); i < counts.rows; i += kBlock) {
      thread.Store(counts.span, counts.Begin(i), thread.Load(sums, i));
    }
  }
};

}  // namespace

void ListExpertItems(GpuStream& stream, const ExpertItemsArgs& args) {
  const int64_t experts = args.item_offsets.dim(0) - 1;
  TESSERA_CHECK_LE(experts, kMaxRoutedExperts);
  TESSERA_CHECK_EQ(args.row_of_slot.dim(0), args.expert_ids.dim(0));
  TESSERA_CHECK_EQ(args.row_of_slot.dim(1), args.expert_ids.dim(1));
  ListExpertItemsKernel kernel;
  kernel.local = ExpertValuesOf(args.expert_ids, args.local_of_expert, args.fault);
  if (args.weights.rank > 0) {
    kernel.weights = RowsOf<const float>(args.weights);
    kernel.item_weights = ColumnOf<float>(args.item_weights);
  }
  kernel.item_offsets = ColumnOf<int32_t>(args.item_offsets);
  kernel.row_of_item = ColumnOf<int32_t>(args.row_of_item);
  kernel.row_of_slot = RowsOf<int32_t>(args.row_of_slot);
  Launch(
      stream,
      {.block = {kBlock}, .shared_bytes = static_cast<uint32_t>(4 * (kTile + experts))},
      kernel);
}

void CountExperts(GpuStream& stream, TensorView expert_ids, TensorView counts) {
  TESSERA_CHECK_LE(counts.dim(0), kMaxRoutedExperts);
  if (!counts.empty()) {
    Launch(
        stream,
        {.block = {kBlock}, .shared_bytes = static_cast<uint32_t>(4 * counts.dim(0))},
        CountExpertsKernel{RowsOf<const int32_t>(expert_ids), ColumnOf<int32_t>(counts)});
  }
}

}  // namespace tessera::kernels::cuda
