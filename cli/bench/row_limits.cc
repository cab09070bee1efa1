#include "cli/bench/row_limits.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/table/row_memory.h"

namespace tessera::cli {
namespace {

constexpr size_t kCacheLine = 64;
// How many rows ahead is tried: none, and up to where the first rows are evicted again.
constexpr std::array<size_t, 6> kAhead = {0, 2, 4, 8, 12, 16};
// Rows of one trial, other ones each time: long enough to tell the depths apart.
constexpr size_t kTrialRows = 32768;
constexpr int kTrials = 3;

// Sums that do not depend on each other: a remainder is a chain of about 8 cycles, of
// which the multiplier is busy for 2.
constexpr size_t kChains = 8;
constexpr int64_t kRemainders = 1 << 20;
constexpr uint32_t kPrime = 16000057;

void Prefetch(const std::byte* row, size_t bytes) {
  for (size_t at = 0; at < bytes; at += kCacheLine) {
    __builtin_prefetch(row + at);
  }
  __builtin_prefetch(row + bytes - 1);
}

// The length as a constant makes the copy a few vector moves. 264 bytes: V4.1.
template <size_t kBytes>
void Copy(const std::byte* rows, size_t row_bytes, size_t ahead,
          std::span<const uint32_t> ids, std::byte* out) {
  const size_t bytes = kBytes == 0 ? row_bytes : kBytes;
  const size_t first = std::min(ahead, ids.size());
  for (size_t i = 0; i < first; ++i) {
    Prefetch(rows + ids[i] * bytes, bytes);
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ahead > 0 && i + ahead < ids.size()) {
      Prefetch(rows + ids[i + ahead] * bytes, bytes);
    }
    std::memcpy(out + i * bytes, rows + ids[i] * bytes, bytes);
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<RowLimits>> RowLimits::Create(uint64_t bytes,
                                                             size_t row_bytes,
                                                             Clock* clock) {
  const uint64_t count = row_bytes == 0 ? 0 : bytes / row_bytes;
  if (count < 1 || count > std::numeric_limits<uint32_t>::max()) {
    return InvalidArgumentF("{} bytes for rows of {}", bytes, row_bytes);
  }
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<engram_store::RowMemory> rows,
                           engram_store::RowMemory::AllocatePrivate(count * row_bytes));
  const std::span<std::byte> memory = rows->mutable_bytes();
  std::memset(memory.data(), 1, memory.size());
  auto limits =
      std::unique_ptr<RowLimits>(new RowLimits(std::move(rows), row_bytes, clock));
  std::mt19937 random(1);
  std::vector<std::byte> destination(kTrialRows * row_bytes);
  double best = std::numeric_limits<double>::infinity();
  for (int trial = 0; trial < kTrials; ++trial) {
    for (const size_t ahead : kAhead) {
      std::vector<uint32_t> ids(kTrialRows);
      for (uint32_t& id : ids) {
        id = static_cast<uint32_t>(random() % count);
      }
      const size_t before = std::exchange(limits->ahead_, ahead);
      const double seconds = limits->GatherSeconds({&ids, 1}, destination.data());
      if (seconds < best) {
        best = seconds;
      } else {
        limits->ahead_ = before;
      }
    }
  }
  return limits;
}

double RowLimits::GatherSeconds(std::span<const std::vector<uint32_t>> requests,
                                std::byte* destination) const {
  const std::byte* const rows = rows_->bytes().data();
  const absl::Time begin = clock_->Now();
  for (const std::vector<uint32_t>& ids : requests) {
    if (row_bytes_ == 264) {
      Copy<264>(rows, row_bytes_, ahead_, ids, destination);
    } else {
      Copy<0>(rows, row_bytes_, ahead_, ids, destination);
    }
  }
  return absl::ToDoubleSeconds(clock_->Now() - begin);
}

double RowLimits::RemaindersPerSecond() const {
  __extension__ using Uint128 = unsigned __int128;
  constexpr uint64_t kReciprocal = std::numeric_limits<uint64_t>::max() / kPrime;
  double best = 0;
  for (int trial = 0; trial < kTrials; ++trial) {
    uint64_t values[kChains] = {};
    const absl::Time begin = clock_->Now();
    for (int64_t i = 0; i < kRemainders; ++i) {
      for (uint64_t& value : values) {
        value += uint64_t{0x9E3779B97F4A7C15};
        const auto quotient =
            static_cast<uint64_t>((static_cast<Uint128>(value) * kReciprocal) >> 64);
        value -= quotient * kPrime;
      }
    }
    const double seconds = absl::ToDoubleSeconds(clock_->Now() - begin);
    volatile uint64_t sink = 0;
    for (const uint64_t value : values) {
      sink = sink + value;
    }
    best = std::max(best, static_cast<double>(kRemainders) * kChains / seconds);
  }
  return best;
}

}  // namespace tessera::cli
