// The best of a stream of scored ids, kept in shared memory by a whole block: scores come
// in chunks, and after each one the `limit` highest stay, in the order they came in;
// equal scores go to the earlier id. A radix selection over the bits of the score: counts
// alone, so nothing depends on the order of threads, and no candidate is dropped.
#ifndef TESSERA_KERNELS_CUDA_PRIMITIVES_SHORTLIST_CUH_
#define TESSERA_KERNELS_CUDA_PRIMITIVES_SHORTLIST_CUH_

#include <cstdint>

#include "kernels/cuda/primitives/group_scale.cuh"

namespace tessera::kernels::cuda {

// Rises with the score: a NaN above all, +0 equal to -0.
TESSERA_DEVICE inline uint32_t OrderKey(float score) {
  if (IsNan(score)) {
    return 0xffffffffU;
  }
  const uint32_t bits = BitsOfFloat(score == 0 ? 0.0F : score);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000U;
}

inline constexpr int64_t kShortlistBins = 256;

// Keys and ids in shared memory; an id below zero does not compete. `bins` is scratch of
// kShortlistBins + 2 words. Calls are made by the whole block.
struct Shortlist {
  SharedSpan<uint32_t> keys;
  SharedSpan<int32_t> ids;
  SharedSpan<uint32_t> bins;

  static constexpr int64_t Bytes(int64_t capacity) {
    return 4 * (2 * capacity + kShortlistBins + 2);
  }
  // In the dynamic shared memory from `begin_bytes` on.
  TESSERA_DEVICE static Shortlist At(Thread& thread, uint32_t begin_bytes,
                                     int64_t capacity) {
    uint32_t* const words = thread.DynamicShared<uint32_t>(begin_bytes).data;
    int32_t* const ints = thread.DynamicShared<int32_t>(begin_bytes).data;
    return {{words, capacity},
            {ints + capacity, capacity},
            {words + 2 * capacity, kShortlistBins + 2}};
  }

  // How many of the first `total` stay, now at the front. Begins and ends with a barrier.
  TESSERA_DEVICE int64_t Keep(Thread& thread, int64_t total, int64_t limit) const {
    thread.SyncBlock();
    uint32_t threshold = 0;
    int64_t of_threshold = limit;  // how many keys equal to it stay
    uint32_t decided = 0;          // bits of the threshold that are known
    for (int32_t shift = 24; shift >= 0; shift -= 8) {
      CountDigits(thread, total, threshold, decided, shift);
      if (thread.linear_thread() == 0) {
        PickDigit(thread, of_threshold);
      }
      thread.SyncBlock();
      threshold |= thread.Load(bins, kShortlistBins) << shift;
      of_threshold = thread.Load(bins, kShortlistBins + 1);
      decided |= 0xffU << shift;
    }
    thread.SyncBlock();  // all have read, before the first warp writes there
    if (thread.linear_thread() < kWarpSize) {
      Compact(thread, total, threshold, of_threshold);
    }
    thread.SyncBlock();
    return thread.Load(bins, kShortlistBins);
  }

 private:
  // By the digit at `shift`, of the keys that have the known bits of the threshold.
  TESSERA_DEVICE void CountDigits(Thread& thread, int64_t total, uint32_t threshold,
                                  uint32_t decided, int32_t shift) const {
    const int64_t step = thread.block_dim().x;
    for (int64_t i = thread.linear_thread(); i < kShortlistBins; i += step) {
      thread.Store(bins, i, 0);
    }
    thread.SyncBlock();
    for (int64_t i = thread.linear_thread(); i < total; i += step) {
      if (thread.Load(ids, i) >= 0) {
        const uint32_t key = thread.Load(keys, i);
        if ((key & decided) == threshold) {
          thread.AtomicAdd(bins, (key >> shift) & 0xffU, 1U);
        }
      }
    }
    thread.SyncBlock();
  }

  // The digit of the key that is the `wanted`-th from above, and which of its equals.
  TESSERA_DEVICE void PickDigit(Thread& thread, int64_t wanted) const {
    int64_t digit = kShortlistBins - 1;
    for (; digit > 0; --digit) {
      const int64_t here = thread.Load(bins, digit);
      if (here >= wanted) {
        break;
      }
      wanted -= here;
    }
    thread.Store(bins, kShortlistBins, static_cast<uint32_t>(digit));
    thread.Store(bins, kShortlistBins + 1, static_cast<uint32_t>(wanted));
  }

  // By the first warp, 32 at a time: what is read is never behind what is written.
  TESSERA_DEVICE void Compact(Thread& thread, int64_t total, uint32_t threshold,
                              int64_t of_threshold) const {
    const uint32_t before = (1U << thread.lane()) - 1U;
    int64_t kept = 0;
    int64_t equals = 0;
    for (int64_t first = 0; first < total; first += kWarpSize) {
      const int64_t i = first + thread.lane();
      const int32_t id = i < total ? thread.Load(ids, i) : -1;
      const uint32_t key = id >= 0 ? thread.Load(keys, i) : 0;
      const bool ties = id >= 0 && key == threshold;
      const uint32_t tied = thread.Ballot(ties);
      const bool stays = (id >= 0 && key > threshold) ||
                         (ties && equals + CountBits(tied & before) < of_threshold);
      const uint32_t staying = thread.Ballot(stays);
      thread.SyncWarp();  // votes do not order memory: all lanes have read
      if (stays) {
        thread.Store(keys, kept + CountBits(staying & before), key);
        thread.Store(ids, kept + CountBits(staying & before), id);
      }
      thread.SyncWarp();
      kept += CountBits(staying);
      equals += CountBits(tied);
    }
    if (thread.lane() == 0) {
      thread.Store(bins, kShortlistBins, static_cast<uint32_t>(kept));
    }
  }

  TESSERA_DEVICE static int64_t CountBits(uint32_t bits) {
    int64_t count = 0;
    for (; bits != 0; bits &= bits - 1) {
      ++count;
    }
    return count;
  }
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_PRIMITIVES_SHORTLIST_CUH_
