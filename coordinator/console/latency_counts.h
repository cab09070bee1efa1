// LatencyCounts: how often a latency fell where, in buckets of equal ratio, small enough
// to keep one per second. Quantiles are exact to 19 %.
#ifndef TESSERA_COORDINATOR_CONSOLE_LATENCY_COUNTS_H_
#define TESSERA_COORDINATOR_CONSOLE_LATENCY_COUNTS_H_

#include <array>
#include <cstdint>
#include <optional>

#include "absl/time/time.h"

namespace tessera::coordinator {

// External synchronisation.
class LatencyCounts {
 public:
  void Add(absl::Duration latency);

  // The latency in milliseconds under which the fraction `quantile` of what was added
  // lies, absent where nothing was added.
  std::optional<double> Quantile(double quantile) const;

  void Clear();

 private:
  // 10 us times 2^(i / 4): the last bucket begins at 10 us x 2^24 = 168 s.
  static constexpr size_t kNumBuckets = 97;

  std::array<uint32_t, kNumBuckets> counts_ = {};
  uint64_t total_ = 0;
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_CONSOLE_LATENCY_COUNTS_H_
