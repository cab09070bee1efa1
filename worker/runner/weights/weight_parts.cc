#include "worker/runner/weights/weight_parts.h"

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "fmt/format.h"

#include "common/status_macros.h"
#include "kernels/kernel_backend.h"
#include "model/config/model_config.h"
#include "model/formats/dtype.h"

namespace tessera::worker {

using model::DType;

namespace {

absl::StatusOr<HyperWeights> ReadHyper(WeightReader& reader, const std::string& prefix,
                                       int64_t rows, int64_t num_scales) {
  const model::ModelConfig& config = reader.config();
  const int64_t width = config.num_streams() * config.hidden_size;
  HyperWeights out;
  TESSERA_ASSIGN_OR_RETURN(out.fn,
                           reader.Matrix(prefix + "fn", DType::kF32, rows, width));
  TESSERA_ASSIGN_OR_RETURN(out.base, reader.Floats(prefix + "base", rows));
  TESSERA_ASSIGN_OR_RETURN(out.scale, reader.Floats(prefix + "scale", num_scales));
  return out;
}

}  // namespace

absl::StatusOr<HyperWeights> ReadSublayerHyper(WeightReader& reader,
                                               const std::string& prefix) {
  if (reader.config().residual == model::ResidualKind::kPlain) {
    return HyperWeights{};
  }
  const int64_t streams = reader.config().num_streams();
  return ReadHyper(reader, prefix, streams * (streams + 2), 3);
}

absl::StatusOr<HyperWeights> ReadHeadHyper(WeightReader& reader,
                                           const std::string& prefix) {
  if (reader.config().residual != model::ResidualKind::kHyperConnections) {
    return HyperWeights{};
  }
  return ReadHyper(reader, prefix, reader.config().num_streams(), 1);
}

absl::StatusOr<MlpWeights> ReadMlp(WeightReader& reader, const std::string& prefix,
                                   const MlpNames& names, int64_t width) {
  MlpWeights out;
  const int64_t d = reader.config().hidden_size;
  TESSERA_ASSIGN_OR_RETURN(out.gate, reader.LinearRows(prefix + names.gate, width, d));
  TESSERA_ASSIGN_OR_RETURN(out.up, reader.LinearRows(prefix + names.up, width, d));
  TESSERA_ASSIGN_OR_RETURN(out.down, reader.LinearColumns(prefix + names.down, d, width));
  return out;
}

absl::StatusOr<MoeWeights> ReadExperts(WeightReader& reader, const std::string& prefix,
                                       const MlpNames& names, int64_t layer) {
  MoeWeights out;
  const model::MoeConfig& moe = reader.config().moe_of(layer);
  const int64_t d = reader.config().hidden_size;
  const int64_t m = moe.expert_width;
  for (const int expert : reader.experts_of(layer)) {
    const std::string name = fmt::format("{}experts.{}.", prefix, expert);
    kernels::ExpertWeights weights;
    TESSERA_ASSIGN_OR_RETURN(weights.gate,
                             reader.Expert(name + names.gate, moe.expert_dtype, m, d));
    TESSERA_ASSIGN_OR_RETURN(weights.up,
                             reader.Expert(name + names.up, moe.expert_dtype, m, d));
    TESSERA_ASSIGN_OR_RETURN(weights.down,
                             reader.Expert(name + names.down, moe.expert_dtype, d, m));
    out.experts.push_back(weights);
  }
  if (moe.num_shared_experts > 0) {
    TESSERA_ASSIGN_OR_RETURN(out.shared, ReadMlp(reader, prefix + "shared_experts.",
                                                 names, moe.num_shared_experts * m));
  }
  return out;
}

absl::StatusOr<EngramWeights> ReadEngram(WeightReader& reader,
                                         const std::string& prefix) {
  EngramWeights out;
  const model::EngramConfig& engram = *reader.config().engram;
  const int64_t d = reader.config().hidden_size;
  const int64_t streams = reader.config().num_streams();
  TESSERA_ASSIGN_OR_RETURN(out.wkv,
                           reader.Linear(prefix + "wkv", (streams + 1) * d,
                                         engram.num_columns() * engram.head_dim));
  TESSERA_ASSIGN_OR_RETURN(out.q_weight,
                           reader.Matrix(prefix + "q_weight", DType::kBF16, streams, d));
  TESSERA_ASSIGN_OR_RETURN(out.k_weight,
                           reader.Matrix(prefix + "k_weight", DType::kBF16, streams, d));
  if (engram.contract == model::EngramContract::kDemo) {
    // Kernel width 4 is part of the contract (engram.md 6.1).
    TESSERA_ASSIGN_OR_RETURN(
        out.conv, reader.Matrix(prefix + "conv.weight", DType::kBF16, streams * d, 4));
    TESSERA_ASSIGN_OR_RETURN(out.conv_norm, reader.Matrix(prefix + "conv_norm.weight",
                                                          DType::kBF16, streams, d));
  }
  return out;
}

}  // namespace tessera::worker
