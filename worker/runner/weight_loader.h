// Loads the weights of one rank: views into the mapped checkpoint, cut as the shard rule
// says. TP splits q_b, kv_b and the vocabulary by rows, o_proj and the down projections
// by columns (leaves of the fixed tree); a routed expert is never cut; all else is whole
// on every rank. Nothing is copied.
#ifndef TESSERA_WORKER_RUNNER_WEIGHT_LOADER_H_
#define TESSERA_WORKER_RUNNER_WEIGHT_LOADER_H_

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "model/config/model_config.h"
#include "model/tensors/checkpoint.h"
#include "worker/layers/weights.h"

namespace tessera::worker {

struct WeightShard {
  int tp_rank = 0;
  int tp_size = 1;
  std::span<const int> local_experts;  // logical ids, rising
};

struct LoadedWeights {
  ModelWeights weights;
  uint64_t bytes =
      0;  // of the checkpoint that this rank reads, Engram tables not counted
};

// kInvalidArgument: tp is not 1, 2, 4 or 8, or does not divide the heads.
absl::Status CheckTensorParallel(const model::ModelConfig& config, int tp_size);

// `checkpoint` must outlive the views. kNotFound or kDataLoss name the tensor. E8M0
// scales that are NaN (byte 255) are kDataLoss.
absl::StatusOr<LoadedWeights> LoadWeights(const model::Checkpoint& checkpoint,
                                          const model::ModelConfig& config,
                                          const WeightShard& shard);

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_WEIGHT_LOADER_H_
