// HotRowCache: copies of the rows that were asked for lately, in memory of a fixed size.
// Text uses few n-grams often (Zipf), so that a small cache in front of a far table
// answers much of a decode batch. It fetches nothing and counts nothing: CachedSource
// does.
//
// Eight ways per set: a row may lie in any of the eight places of the set that its key
// hashes to, so that a lookup reads one line of keys and an insertion moves nothing.
// Inside a set a new row is on trial: trials go in the order they came, and one that was
// found meanwhile is kept instead. At most half of the ways keep rows, by CLOCK, and what
// they no longer keep is on trial again. So rows that are used once, however many, push
// out only each other (a scan-resistant policy in the manner of 2Q, by four bytes a set).
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

  // As Find, but no use of the row.
  const std::byte* Peek(uint32_t table, uint32_t row) const;

  // Copies the row, of at most max_row_bytes, unless it is here. `ahead`: before its
  // first use, so that finding it once does not yet tell it from others. True if another
  // row had to go for it.
  bool Insert(uint32_t table, uint32_t row, std::span<const std::byte> bytes,
              bool ahead = false);

  // How many rows it can hold, and what that takes.
  uint64_t max_rows() const { return uint64_t{sets_.size()} * kWays; }
  uint64_t num_bytes() const;

 private:
  static constexpr uint64_t kNoKey = ~uint64_t{0};
  static constexpr int kMaxKept = kWays / 2;

  // Bits are one per way.
  struct Set {
    std::array<uint64_t, kWays> keys;
    uint8_t used = 0;       // found since a hand passed
    uint8_t ahead = 0;      // inserted before its first use, which is still to come
    uint8_t kept = 0;       // the others are on trial
    uint8_t hand = 0;       // of the ways on trial: the one that is looked at next
    uint8_t kept_hand = 0;  // likewise of those that are kept
  };

  HotRowCache(size_t row_bytes, size_t num_sets, std::unique_ptr<RowMemory> rows);

  static uint64_t KeyOf(uint32_t table, uint32_t row) {
    return (uint64_t{table} << 32) | row;
  }
  size_t SetOf(uint64_t key) const;
  std::byte* RowAt(size_t set, size_t way) const {
    return data_ + (set * kWays + way) * row_bytes_;
  }
  // The way of a key in its set, or kWays.
  static size_t WayOf(const Set& set, uint64_t key);
  static size_t TakeVictim(Set* set);
  static void KeepOneLess(Set* set);

  const size_t row_bytes_;
  std::vector<Set> sets_;
  const std::unique_ptr<RowMemory> rows_;
  std::byte* const data_;  // [sets][ways][row_bytes], in rows_
};

}  // namespace tessera::engram_store

#endif  // TESSERA_ENGRAM_STORE_CLIENT_HOT_ROW_CACHE_H_
