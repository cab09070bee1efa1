// ExpertLoads: how many items went to each routed expert of each MoE layer, over all
// ranks: in the last minute, and since the coordinator started. The engine adds the
// ranks' reports; the console and /metrics read. Probes are not in it, nor are draft
// layers; drafts that the model verified are.
#ifndef TESSERA_COORDINATOR_CONSOLE_EXPERT_LOADS_H_
#define TESSERA_COORDINATOR_CONSOLE_EXPERT_LOADS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/mutex.h"

namespace tessera::coordinator {

struct ExpertShape {
  int64_t first_layer = 0;  // the first MoE layer's number; those after it follow
  int64_t num_layers = 0;   // MoE layers
  std::vector<int> rank_of_expert = {};  // [num_experts], the same in every layer

  int64_t num_experts() const { return std::ssize(rank_of_expert); }
  size_t num_counts() const {
    return static_cast<size_t>(num_layers) * rank_of_expert.size();
  }
};

// [MoE layers, num_experts] each, row by row.
struct ExpertLoadCounts {
  std::vector<uint64_t> recent;
  std::vector<uint64_t> total;

  std::span<const uint64_t> recent_of(const ExpertShape& shape, int64_t layer) const;
  std::span<const uint64_t> total_of(const ExpertShape& shape, int64_t layer) const;
};

// Largest over mean; nothing where all are 0.
std::optional<double> ImbalanceOf(std::span<const uint64_t> counts);

// Thread-safe. Memory: 8 (kSlices + 1) bytes per count, 0.8 MB of a V3 (58 x 256).
class ExpertLoads {
 public:
  // `recent` covers the last kSlices - 1 to kSlices slices: the present one is open.
  static constexpr absl::Duration kSlice = absl::Seconds(10);
  static constexpr size_t kSlices = 6;

  // `clock` must outlive it.
  ExpertLoads(ExpertShape shape, Clock* clock);

  const ExpertShape& shape() const { return shape_; }

  // Adds one report of one DP rank, shape().num_counts() long.
  void Add(std::span<const uint32_t> counts);

  ExpertLoadCounts Read();

 private:
  using Counts = std::vector<uint64_t>;

  void AdvanceTo(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const ExpertShape shape_;
  Clock* const clock_;
  Mutex mutex_;
  absl::Time slice_start_ ABSL_GUARDED_BY(mutex_);  // of the open slice
  size_t open_ ABSL_GUARDED_BY(mutex_) = 0;
  std::array<Counts, kSlices> slices_ ABSL_GUARDED_BY(mutex_);
  Counts total_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tessera::coordinator

#endif  // TESSERA_COORDINATOR_CONSOLE_EXPERT_LOADS_H_
