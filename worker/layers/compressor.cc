#include "worker/layers/compressor.h"

#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "worker/layers/scratch_arena.h"
#include "worker/layers/step_context.h"

namespace tessera::worker {

using kernels::KSplit;
using kernels::TensorView;

void Compressor::Compress(const StepContext& context, TensorView x,
                          TensorView latent) const {
  auto& ops = *context.backend;
  auto& stream = *context.stream;
  if (!weights_.gate.has_value()) {
    ops.Linear(stream, x, weights_.kv, KSplit::Whole(), latent);
    ops.RmsNorm(stream, latent, weights_.norm, options_.norm_eps, latent);
    return;
  }
  ScratchArena::Scope scope(context.scratch);
  const int64_t width = weights_.kv.rows;
  const TensorView values =
      context.scratch->Take(context.dtype(), {context.num_tokens, width});
  const TensorView gates =
      context.scratch->Take(context.dtype(), {context.num_tokens, width});
  ops.Linear(stream, x, weights_.kv, KSplit::Whole(), values);
  ops.Linear(stream, x, *weights_.gate, KSplit::Whole(), gates);
  if (weights_.position.has_value()) {
    ops.AddPositionBias(stream, gates, *weights_.position, context.paged.positions);
  }
  ops.StorePaged(stream, values, context.tail_slots, values_);
  ops.StorePaged(stream, gates, context.tail_slots, gates_);
  ops.Compress(stream, {.values = values_,
                        .gates = gates_,
                        .index = context.tail,
                        .ratio = options_.ratio,
                        .overlap = options_.overlaps,
                        .out = latent});
  ops.RmsNorm(stream, latent, weights_.norm, options_.norm_eps, latent);
}

}  // namespace tessera::worker
