#include "worker/layers/engram_layer.h"

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"

#include "common/status_macros.h"
#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "model/config/model_config.h"
#include "worker/layers/scratch_arena.h"
#include "worker/layers/step_context.h"

namespace tessera::worker {

using kernels::KSplit;
using kernels::TensorView;

namespace {

// The demo contract's epsilons are torch defaults, not the model's (engram.md 6.1).
constexpr double kDemoGateEps = 1.1920929e-07;
constexpr double kDemoConvEps = 1e-5;

}  // namespace

EngramLayer::EngramLayer(const model::ModelConfig& config, int64_t index, int64_t layer,
                         const EngramWeights& weights, TensorView conv_cache)
    : engram_(*config.engram),
      norm_eps_(config.rms_norm_eps),
      hidden_(config.hidden_size),
      num_streams_(config.num_streams()),
      index_(index),
      layer_(layer),
      weights_(weights),
      conv_cache_(conv_cache) {}

size_t EngramLayer::scratch_bytes(int64_t max_tokens) const {
  const int64_t memory = engram_.num_columns() * engram_.head_dim;
  return ScratchArena::Bytes(
             kernels::DType::kF64,
             max_tokens * (memory + (2 * num_streams_ + 1) * hidden_ + num_streams_)) +
         4 * ScratchArena::kAlignment;
}

absl::Status EngramLayer::Forward(const StepContext& context, EngramRows& rows,
                                  TensorView streams) {
  const int64_t tokens = context.num_tokens;
  if (tokens == 0) {
    return absl::OkStatus();
  }
  const bool demo = engram_.contract == model::EngramContract::kDemo;
  TESSERA_ASSIGN_OR_RETURN(const TensorView packed, rows.Await(context, index_));
  ScratchArena::Scope scope(context.scratch);
  const TensorView memory = context.scratch->Take(
      context.dtype(), {tokens, engram_.num_columns() * engram_.head_dim});
  context.backend->DecodeEngramRows(*context.stream, packed, rows.format(),
                                    engram_.head_dim, memory);
  context.Trace("engram.memory", layer_, memory);
  const TensorView kv =
      context.scratch->Take(context.dtype(), {tokens, (num_streams_ + 1) * hidden_});
  context.backend->Linear(*context.stream, memory, weights_.wkv, KSplit::Whole(), kv);
  const TensorView gate = context.scratch->Take(context.dtype(), {tokens, num_streams_});
  TensorView gated;
  if (demo) {
    gated = context.scratch->Take(context.dtype(), {tokens, num_streams_, hidden_});
  }
  context.backend->EngramGate(
      *context.stream,
      {.streams = streams,
       .kv = kv,
       .q_weight = weights_.q_weight,
       .k_weight = weights_.k_weight,
       .eps = demo ? kDemoGateEps : norm_eps_,
       .sign = demo ? kernels::EngramGateSign::kSign : kernels::EngramGateSign::kCopysign,
       .gate = gate,
       .gated = gated});
  context.Trace("engram.gate", layer_, gate);
  if (demo) {
    context.backend->EngramConv(*context.stream, {.gated = gated,
                                                  .streams = streams,
                                                  .kernel = *weights_.conv,
                                                  .norm = *weights_.conv_norm,
                                                  .eps = kDemoConvEps,
                                                  .dilation = engram_.max_ngram,
                                                  .cache = conv_cache_,
                                                  .index = context.paged});
  }
  return absl::OkStatus();
}

}  // namespace tessera::worker
