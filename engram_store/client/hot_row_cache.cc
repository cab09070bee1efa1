#include "engram_store/client/hot_row_cache.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::engram_store {
namespace {

// Fibonacci hashing: the high bits of a product with 2^64 / golden ratio.
constexpr uint64_t kHashMultiplier = 0x9E3779B97F4A7C15;
// With twice as many places as rows, hardly a set overflows.
constexpr uint64_t kPlacesPerRow = 2;
constexpr size_t kPageBytes = 4096;

bool Has(uint8_t ways, size_t way) { return ((ways >> way) & 1u) != 0; }
uint8_t With(uint8_t ways, size_t way) {
  return static_cast<uint8_t>(ways | (1u << way));
}
uint8_t Without(uint8_t ways, size_t way) {
  return static_cast<uint8_t>(ways & ~(1u << way));
}

// The next of `ways`, of which there is one, from the hand on; the hand passes it.
size_t NextOf(uint8_t ways, uint8_t* hand) {
  while (!Has(ways, *hand)) {
    *hand = static_cast<uint8_t>((*hand + 1) % HotRowCache::kWays);
  }
  const size_t way = *hand;
  *hand = static_cast<uint8_t>((way + 1) % HotRowCache::kWays);
  return way;
}

}  // namespace

absl::StatusOr<std::unique_ptr<HotRowCache>> HotRowCache::Create(
    const HotRowCacheOptions& options) {
  if (options.max_row_bytes == 0 ||
      options.max_row_bytes > std::numeric_limits<uint32_t>::max()) {
    return InvalidArgumentF("a cache of rows of {} bytes", options.max_row_bytes);
  }
  const uint64_t set_bytes = sizeof(Set) + kWays * options.max_row_bytes;
  const uint64_t useful_sets = options.num_rows / kWays * kPlacesPerRow + 1;
  const uint64_t num_sets = std::min({options.capacity_bytes / set_bytes, useful_sets,
                                      uint64_t{std::numeric_limits<uint32_t>::max()}});
  if (num_sets == 0) {
    return InvalidArgumentF("a row cache of {} bytes, expected at least {} for {} rows",
                            options.capacity_bytes, set_bytes, kWays);
  }
  TESSERA_ASSIGN_OR_RETURN(
      std::unique_ptr<RowMemory> rows,
      RowMemory::AllocatePrivate(num_sets * kWays * options.max_row_bytes));
  return std::unique_ptr<HotRowCache>(
      new HotRowCache(options.max_row_bytes, num_sets, std::move(rows)));
}

HotRowCache::HotRowCache(size_t row_bytes, size_t num_sets,
                         std::unique_ptr<RowMemory> rows)
    : row_bytes_(row_bytes),
      sets_(num_sets),
      rows_(std::move(rows)),
      data_(rows_->mutable_bytes().data()) {
  for (Set& set : sets_) {
    set.keys.fill(kNoKey);
  }
  // Touches every page now: a fault zeroes up to 2 MiB, which no step should wait for.
  const std::span<std::byte> bytes = rows_->mutable_bytes();
  for (size_t offset = 0; offset < bytes.size(); offset += kPageBytes) {
    *const_cast<volatile std::byte*>(&bytes[offset]) = std::byte{0};
  }
}

uint64_t HotRowCache::num_bytes() const {
  return rows_->bytes().size() + sets_.size() * sizeof(Set);
}

size_t HotRowCache::SetOf(uint64_t key) const {
  // A fraction of 2^32, scaled: no division, and any number of sets.
  return static_cast<size_t>((((key * kHashMultiplier) >> 32) * sets_.size()) >> 32);
}

size_t HotRowCache::WayOf(const Set& set, uint64_t key) {
  size_t way = 0;
  while (way < kWays && set.keys[way] != key) {
    ++way;
  }
  return way;
}

const std::byte* HotRowCache::Find(uint32_t table, uint32_t row) {
  const uint64_t key = KeyOf(table, row);
  const size_t index = SetOf(key);
  Set& set = sets_[index];
  const size_t way = WayOf(set, key);
  if (way == kWays) {
    return nullptr;
  }
  if (Has(set.ahead, way)) {
    set.ahead = Without(set.ahead, way);
  } else {
    set.used = With(set.used, way);
  }
  return RowAt(index, way);
}

const std::byte* HotRowCache::Peek(uint32_t table, uint32_t row) const {
  const uint64_t key = KeyOf(table, row);
  const size_t index = SetOf(key);
  const size_t way = WayOf(sets_[index], key);
  return way == kWays ? nullptr : RowAt(index, way);
}

void HotRowCache::Prefetch(uint32_t table, uint32_t row) const {
  const std::byte* set =
      reinterpret_cast<const std::byte*>(&sets_[SetOf(KeyOf(table, row))]);
  __builtin_prefetch(set);
  __builtin_prefetch(set + sizeof(Set) - 1);
}

size_t HotRowCache::TakeVictim(Set* set) {
  // Ends: every turn but the last takes away a mark of use, and nothing sets one.
  while (true) {
    const size_t way = NextOf(static_cast<uint8_t>(~set->kept), &set->hand);
    if (!Has(set->used, way)) {
      return way;
    }
    set->used = Without(set->used, way);
    set->kept = With(set->kept, way);
    if (std::popcount(set->kept) > kMaxKept) {
      KeepOneLess(set);
    }
  }
}

void HotRowCache::KeepOneLess(Set* set) {
  // Ends: after one round none of the kept ways is marked as used.
  while (true) {
    const size_t way = NextOf(set->kept, &set->kept_hand);
    if (!Has(set->used, way)) {
      set->kept = Without(set->kept, way);
      return;
    }
    set->used = Without(set->used, way);
  }
}

bool HotRowCache::Insert(uint32_t table, uint32_t row, std::span<const std::byte> bytes,
                         bool ahead) {
  TESSERA_CHECK_LE(bytes.size(), row_bytes_);
  const uint64_t key = KeyOf(table, row);
  const size_t index = SetOf(key);
  Set& set = sets_[index];
  if (WayOf(set, key) < kWays) {
    return false;
  }
  const size_t way = TakeVictim(&set);
  const bool evicts = set.keys[way] != kNoKey;
  set.keys[way] = key;
  set.ahead = ahead ? With(set.ahead, way) : Without(set.ahead, way);
  std::memcpy(RowAt(index, way), bytes.data(), bytes.size());
  return evicts;
}

}  // namespace tessera::engram_store
