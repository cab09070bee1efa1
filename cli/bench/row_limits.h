// RowLimits: what one thread of this machine can do of what an Engram lookup is made of:
// random rows copied out of memory, and remainders of 64-bit products.
//
// It stands under `tessera bench engram`, which relates the sources to it. The loops are
// the plainest that reach the limit, and are independent of those that are measured.
#ifndef TESSERA_CLI_BENCH_ROW_LIMITS_H_
#define TESSERA_CLI_BENCH_ROW_LIMITS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "common/clock.h"
#include "engram_store/table/row_memory.h"

namespace tessera::cli {

// Owns the rows. External synchronisation; calls block for some milliseconds.
class RowLimits {
 public:
  // As many rows of `row_bytes` as `bytes` hold, touched, on huge pages where the system
  // has them. Chooses how far ahead of the copy rows are asked for: what this machine
  // does fastest. `clock` must outlive it. kInvalidArgument: not one row;
  // kResourceExhausted.
  static absl::StatusOr<std::unique_ptr<RowLimits>> Create(uint64_t bytes,
                                                           size_t row_bytes,
                                                           Clock* clock);

  uint64_t num_rows() const { return rows_->bytes().size() / row_bytes_; }

  // Copies the rows of each request to `destination`, one request after the other, and
  // returns the seconds of all. The ids are below num_rows(), and `destination` has room
  // for the largest request. Rows that were asked for lately are in a cache: ask for
  // others.
  double GatherSeconds(std::span<const std::vector<uint32_t>> requests,
                       std::byte* destination) const;

  // Remainders by a constant per second, each a product of which the high half is
  // needed and one of which the low half is, the way EngramHash takes them: the best of
  // three runs.
  double RemaindersPerSecond() const;

 private:
  RowLimits(std::unique_ptr<engram_store::RowMemory> rows, size_t row_bytes, Clock* clock)
      : rows_(std::move(rows)), row_bytes_(row_bytes), clock_(clock) {}

  const std::unique_ptr<engram_store::RowMemory> rows_;
  const size_t row_bytes_;
  Clock* const clock_;
  size_t ahead_ = 0;  // rows
};

}  // namespace tessera::cli

#endif  // TESSERA_CLI_BENCH_ROW_LIMITS_H_
