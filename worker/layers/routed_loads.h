// RoutedLoads: how many items each MoE layer of a step sent to each expert. The backend
// counts them beside the layers, into memory of its own; the host reads them once, after
// the step. Of that come the step's imbalance and, on the rank that counts for its TP
// group, the counts that plans ask for (expert_counts.h).
#ifndef TESSERA_WORKER_LAYERS_ROUTED_LOADS_H_
#define TESSERA_WORKER_LAYERS_ROUTED_LOADS_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "kernels/kernel_backend.h"
#include "kernels/runtime/device_buffer.h"
#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "worker/layers/expert_counts.h"

namespace tessera::worker {

// Step thread only. Allocates at Create alone.
class RoutedLoads {
 public:
  // `draft_runs`: how often a draft layer runs in a step, at most: for each draft of a
  // sequence, or for each few sequences. What runs outside of steps is not counted beyond
  // it. `backend` must outlive it. kResourceExhausted.
  static absl::StatusOr<std::unique_ptr<RoutedLoads>> Create(
      const model::ModelConfig& config, int64_t draft_runs,
      kernels::KernelBackend* backend);

  // A step begins: imbalance is 0, and what a step before left is forgotten. `counts`:
  // the layers' items are added to counts().
  void Begin(bool counts);
  // Enqueues the count of expert_ids [T, k] of a layer; a draft layer may run several
  // times in a step. Nothing for a step without tokens.
  void Count(kernels::Stream& stream, int64_t layer, kernels::TensorView expert_ids);
  // The step is a launch of a captured one, in which every layer of the model counts.
  void CountedByGraph();
  // After the step's last Synchronize.
  void Finish();

  // Largest max / mean items of an expert over the layers of the step; 0 without items.
  float imbalance() const { return imbalance_; }
  // Of the model's layers since the last ClearCounts.
  std::span<const uint32_t> counts() const { return counts_.counts(); }
  void ClearCounts() { counts_.Clear(); }

 private:
  explicit RoutedLoads(const model::ModelConfig& config);
  int32_t* Row(int64_t row) const {
    return static_cast<int32_t*>(items_.data()) + row * width_;
  }
  // Takes a row in, which Count has filled.
  void Read(int64_t layer, const int32_t* items);

  const model::ModelConfig config_;
  kernels::KernelBackend* backend_ = nullptr;
  const int64_t num_layers_;       // with experts, without the drafts
  const int64_t width_;            // experts of any layer, at most
  kernels::DeviceBuffer items_;    // [num_layers + runs of drafts, width] i32
  std::vector<bool> counted_;      // [num_layers] in this step
  std::vector<int64_t> draft_of_;  // the layers of the draft rows that are filled
  int64_t max_draft_rows_ = 0;
  bool counts_items_ = false;  // in this step
  float imbalance_ = 0;
  ExpertCounts counts_;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_LAYERS_ROUTED_LOADS_H_
