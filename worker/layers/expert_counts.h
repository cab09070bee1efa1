// ExpertCounts: how many items the router sent to each expert of each MoE layer, on the
// rank that counts for its TP group (whose ranks hold the same tokens), since the counts
// were last taken. A fixed array: counting allocates nothing and takes no lock. Draft
// layers have no row; drafts that the model verifies are counted like other positions.
#ifndef TESSERA_WORKER_LAYERS_EXPERT_COUNTS_H_
#define TESSERA_WORKER_LAYERS_EXPERT_COUNTS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "model/config/model_config.h"

namespace tessera::worker {

// Step thread only.
class ExpertCounts {
 public:
  explicit ExpertCounts(const model::ModelConfig& config)
      : first_layer_(config.num_dense_layers),
        num_layers_(config.num_layers - config.num_dense_layers),
        num_experts_(static_cast<size_t>(config.moe.num_experts)),
        counts_(static_cast<size_t>(num_layers_) * num_experts_) {}

  // Adds the items of one step and layer, [num_experts]; nothing for a layer without a
  // row. Counts wrap at 2^32: they are taken every few seconds.
  void Add(int64_t layer, std::span<const int32_t> items) {
    const int64_t row = layer - first_layer_;
    if (row < 0 || row >= num_layers_) {
      return;
    }
    uint32_t* const counts = counts_.data() + static_cast<size_t>(row) * num_experts_;
    for (size_t expert = 0; expert < num_experts_; ++expert) {
      counts[expert] += static_cast<uint32_t>(items[expert]);
    }
  }

  // [MoE layers, num_experts], row by row.
  std::span<const uint32_t> counts() const { return counts_; }

  void Clear() { std::fill(counts_.begin(), counts_.end(), 0); }

 private:
  const int64_t first_layer_;
  const int64_t num_layers_;
  const size_t num_experts_;
  std::vector<uint32_t> counts_;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_EXPERT_COUNTS_H_
