// Loads the weights of one rank: views into the mapped checkpoint, cut as the shard rule
// says. TP splits what heads own (q_b, kv_b, sinks) and the vocabulary by rows, the last
// output projection and the down projections by columns (leaves of the fixed tree), and
// the first output projection of compressed attention by the rows that those leaves read;
// a routed expert is never cut; all else is whole on every rank. Next to nothing is
// copied. Which bytes a rank holds is part of the result, so that they can be read ahead.
#ifndef TESSERA_WORKER_RUNNER_WEIGHTS_WEIGHT_LOADER_H_
#define TESSERA_WORKER_RUNNER_WEIGHTS_WEIGHT_LOADER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

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
  // Of draft layers, where they have another number of experts; nullopt: the same ids.
  std::optional<std::span<const int>> draft_experts = std::nullopt;
};

// `rows` stretches of `bytes`, `stride` apart.
struct ByteRegion {
  const std::byte* data = nullptr;
  int64_t rows = 0;
  int64_t bytes = 0;
  int64_t stride = 0;

  uint64_t total() const { return static_cast<uint64_t>(rows * bytes); }
};

struct LoadedWeights {
  ModelWeights weights;
  // Of the checkpoint, what this rank holds: values and scales, without Engram tables.
  std::vector<ByteRegion> regions;
  uint64_t bytes = 0;  // their sum
};

// kInvalidArgument: tp is not 1, 2, 4 or 8, or does not divide the heads.
absl::Status CheckTensorParallel(const model::ModelConfig& config, int tp_size);

// `checkpoint` must outlive the views. kNotFound or kDataLoss name the tensor: one that
// is missing or of another type or shape, scales that are not numbers, tables of experts
// with ids that are none or that repeat. Reads scales and tables, and where there is a
// backend what that prepares: the linears and the head, not kv_b and the routed experts.
absl::StatusOr<LoadedWeights> LoadWeights(const model::Checkpoint& checkpoint,
                                          const model::ModelConfig& config,
                                          const WeightShard& shard,
                                          kernels::KernelBackend* backend = nullptr);

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_WEIGHTS_WEIGHT_LOADER_H_
