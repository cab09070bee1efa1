#include "coordinator/console/latency_counts.h"

#include <algorithm>
#include <cmath>

namespace tessera::coordinator {
namespace {

constexpr double kLeastMs = 0.01;
constexpr double kBucketsPerOctave = 4;

}  // namespace

void LatencyCounts::Add(absl::Duration latency) {
  const double ms = absl::ToDoubleMilliseconds(latency);
  const double octaves = ms <= kLeastMs ? 0 : std::log2(ms / kLeastMs);
  const double bucket = std::min(octaves * kBucketsPerOctave, double{kNumBuckets - 1});
  ++counts_[static_cast<size_t>(bucket)];
  ++total_;
}

std::optional<double> LatencyCounts::Quantile(double quantile) const {
  if (total_ == 0) {
    return std::nullopt;
  }
  const auto rank =
      static_cast<uint64_t>(std::ceil(quantile * static_cast<double>(total_)));
  uint64_t below = 0;
  for (size_t bucket = 0; bucket < kNumBuckets; ++bucket) {
    below += counts_[bucket];
    if (below >= std::max<uint64_t>(rank, 1)) {
      // The middle of the bucket, by ratio.
      return kLeastMs *
             std::exp2((static_cast<double>(bucket) + 0.5) / kBucketsPerOctave);
    }
  }
  return std::nullopt;
}

void LatencyCounts::Clear() {
  counts_.fill(0);
  total_ = 0;
}

}  // namespace tessera::coordinator
