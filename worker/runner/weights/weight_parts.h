// The parts of a model's weights that several families have, and the two layouts that
// name them. Each takes the prefix that its tensors share.
#ifndef TESSERA_WORKER_RUNNER_WEIGHTS_WEIGHT_PARTS_H_
#define TESSERA_WORKER_RUNNER_WEIGHTS_WEIGHT_PARTS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

#include "worker/layers/weights.h"
#include "worker/runner/weights/weight_reader.h"

namespace tessera::worker {

// Layout "model.layers.i.self_attn…" (V3, V3.2, V4-MLA) and "layers.i.attn…" (V4, V4.1).
absl::StatusOr<ModelWeights> ReadHuggingFaceWeights(WeightReader& reader);
absl::StatusOr<ModelWeights> ReadNativeWeights(WeightReader& reader);

// mHC of a sublayer, or of a head; empty where the residual has none. The prefix ends
// with the separator before "fn".
absl::StatusOr<HyperWeights> ReadSublayerHyper(WeightReader& reader,
                                               const std::string& prefix);
absl::StatusOr<HyperWeights> ReadHeadHyper(WeightReader& reader,
                                           const std::string& prefix);

// What a layout calls the three matrices of a SwiGLU MLP.
struct MlpNames {
  const char* gate;
  const char* up;
  const char* down;
};

absl::StatusOr<MlpWeights> ReadMlp(WeightReader& reader, const std::string& prefix,
                                   const MlpNames& names, int64_t width);

// The routed experts of this rank and the shared ones of a MoE layer, not its router.
absl::StatusOr<MoeWeights> ReadExperts(WeightReader& reader, const std::string& prefix,
                                       const MlpNames& names, int64_t layer);

absl::StatusOr<EngramWeights> ReadEngram(WeightReader& reader, const std::string& prefix);

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_RUNNER_WEIGHTS_WEIGHT_PARTS_H_
