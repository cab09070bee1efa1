#include "worker/runner/weights/weight_loader.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "model/config/model_config.h"
#include "model/tensors/checkpoint.h"
#include "worker/runner/weights/weight_parts.h"
#include "worker/runner/weights/weight_reader.h"

namespace tessera::worker {

absl::Status CheckTensorParallel(const model::ModelConfig& config, int tp_size) {
  if (tp_size != 1 && tp_size != 2 && tp_size != 4 && tp_size != 8) {
    return InvalidArgumentF("tensor parallel size {}, expected 1, 2, 4 or 8", tp_size);
  }
  if (config.num_heads() % tp_size != 0) {
    return InvalidArgumentF("tensor parallel size {} does not divide {} attention heads",
                            tp_size, config.num_heads());
  }
  return absl::OkStatus();
}

absl::StatusOr<LoadedWeights> LoadWeights(const model::Checkpoint& checkpoint,
                                          const model::ModelConfig& config,
                                          const WeightShard& shard,
                                          kernels::KernelBackend* backend) {
  TESSERA_RETURN_IF_ERROR(CheckTensorParallel(config, shard.tp_size));
  TESSERA_CHECK(shard.tp_rank >= 0 && shard.tp_rank < shard.tp_size);
  WeightReader reader(checkpoint, config, shard, backend);
  LoadedWeights out;
  TESSERA_ASSIGN_OR_RETURN(out.weights, config.names == model::TensorNames::kNative
                                            ? ReadNativeWeights(reader)
                                            : ReadHuggingFaceWeights(reader));
  out.weights.owned = reader.TakeOwned();
  out.weights.prepared = reader.TakePrepared();
  out.regions = reader.TakeRegions();
  for (const ByteRegion& region : out.regions) {
    out.bytes += region.total();
  }
  return out;
}

}  // namespace tessera::worker
