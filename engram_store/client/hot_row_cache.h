// HotRowCache: copies of the rows that were asked for lately, in memory of a fixed size.
// Text uses few n-grams often (Zipf), so that a small cache in front of a far table
// answers much of a decode batch. It fetches nothing and counts nothing: CachedSource
// does.
//
// Eight ways per set: a row may lie in any of the eight places of the set that its key
// hashes to, so that a lookup reads one line of keys and an insertion moves nothing.
// Inside a set the victim is chosen by CLOCK: rows that were found since the hand passed
// last are spared once.
#ifndef TESSERA_ENGRAM_STORE_CLIENT_HOT_ROW_CACHE_H_
#define TESSERA_ENGRAM_STORE_CLIENT_HOT_ROW_CACHE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "engram_store/table/row_memory.h"

namespace tessera::engram_store {

struct HotRowCacheOptions {
  uint64_t capacity_bytes = uint64_t{1} << 30;  // for rows and keys together
  size_t max_row_bytes = 0;                     // of the tables it serves
  // Rows of all tables together: more memory than these can fill is not taken.
  uint64_t num_rows = 0;
};

// Allocates, and touches all of its memory, in Create only (about 0.2 s per GiB).
// External synchronisation.
class HotRowCache {
 public:
  static constexpr size_t kWays = 8;

  // kInvalidArgument: rows of no bytes, or a capacity below one set of them.
  // kResourceExhausted: no memory.
  static absl::StatusOr<std::unique_ptr<HotRowCache>> Create(
      const HotRowCacheOptions& options);

  // The row, with the bytes it was inserted with (and more up to max_row_bytes), valid
  // until the next Insert; nullptr if it is not here.
  const std::byte* Find(uint32_t table, uint32_t row);

  // Brings what Find reads first into the CPU's caches.
  void Prefetch(uint32_t table, uint32_t row) const;

  // Copies the row, of at most max_row_bytes, unless it is here. True if another row had
  // to go for it.
  bool Insert(uint32_t table, uint32_t row, std::span<const std::byte> bytes);

  // How many rows it can hold, and what that takes.
  uint64_t max_rows() const { return uint64_t{sets_.size()} * kWays; }
  uint64_t num_bytes() const;

 private:
  static constexpr uint64_t kNoKey = ~uint64_t{0};

  struct Set {
    std::array<uint64_t, kWays> keys;
    uint8_t used = 0;  // a bit per way: found since the hand passed
    uint8_t hand = 0;  // the way that is looked at next for a victim
  };

  HotRowCache(size_t row_bytes, size_t num_sets, std::unique_ptr<RowMemory> rows);

  static uint64_t KeyOf(uint32_t table, uint32_t row) {
    return (uint64_t{table} << 32) | row;
  }
  size_t SetOf(uint64_t key) const;
  std::byte* RowAt(size_t set, size_t way);
  static size_t TakeVictim(Set* set);

  const size_t row_bytes_;
  std::vector<Set> sets_;
  const std::unique_ptr<RowMemory> rows_;  // [sets][ways][row_bytes]
};

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_CLIENT_HOT_ROW_CACHE_H_
