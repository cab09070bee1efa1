#include "engram_store/client/hot_row_cache.h"

#include <algorithm>
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
    : row_bytes_(row_bytes), sets_(num_sets), rows_(std::move(rows)) {
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

std::byte* HotRowCache::RowAt(size_t set, size_t way) {
  return rows_->mutable_bytes().data() + (set * kWays + way) * row_bytes_;
}

const std::byte* HotRowCache::Find(uint32_t table, uint32_t row) {
  const uint64_t key = KeyOf(table, row);
  const size_t index = SetOf(key);
  Set& set = sets_[index];
  for (size_t way = 0; way < kWays; ++way) {
    if (set.keys[way] == key) {
      set.used = static_cast<uint8_t>(set.used | (1u << way));
      return RowAt(index, way);
    }
  }
  return nullptr;
}

void HotRowCache::Prefetch(uint32_t table, uint32_t row) const {
  const std::byte* set =
      reinterpret_cast<const std::byte*>(&sets_[SetOf(KeyOf(table, row))]);
  __builtin_prefetch(set);
  __builtin_prefetch(set + sizeof(Set) - 1);
}

size_t HotRowCache::TakeVictim(Set* set) {
  // Ends: after one round no way is marked as used.
  while ((set->used >> set->hand) & 1u) {
    set->used = static_cast<uint8_t>(set->used & ~(1u << set->hand));
    set->hand = static_cast<uint8_t>((set->hand + 1) % kWays);
  }
  const size_t way = set->hand;
  set->hand = static_cast<uint8_t>((set->hand + 1) % kWays);
  return way;
}

bool HotRowCache::Insert(uint32_t table, uint32_t row, std::span<const std::byte> bytes) {
  TESSERA_CHECK_LE(bytes.size(), row_bytes_);
  const uint64_t key = KeyOf(table, row);
  const size_t index = SetOf(key);
  Set& set = sets_[index];
  if (std::ranges::find(set.keys, key) != set.keys.end()) {
    return false;
  }
  // Free places are empty from the hand on, since nothing is ever removed.
  const size_t way = TakeVictim(&set);
  const bool evicts = set.keys[way] != kNoKey;
  set.keys[way] = key;
  std::memcpy(RowAt(index, way), bytes.data(), bytes.size());
  return evicts;
}

}  // namespace tessera::engram_store
