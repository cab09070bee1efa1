#include "worker/layers/hyper_connections.h"

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"

#include "common/status_macros.h"
#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "worker/layers/scratch_arena.h"
#include "worker/layers/step_context.h"

namespace tessera::worker {

using kernels::TensorView;

size_t HyperConnections::scratch_bytes(int64_t max_tokens) const {
  const int64_t streams = hyper_.num_streams;
  return ScratchArena::Bytes(kernels::DType::kF64,
                             max_tokens * (streams * (streams + 2) + 2 * hidden_)) +
         5 * ScratchArena::kAlignment;
}

void HyperConnections::Begin(const StepContext& context, TensorView x,
                             TensorView streams) {
  context.backend->ExpandStreams(*context.stream, x, streams);
}

absl::Status HyperConnections::Around(const StepContext& context,
                                      const HyperWeights& weights, TensorView streams,
                                      Sublayer sublayer) {
  const int64_t tokens = context.num_tokens;
  const int64_t count = hyper_.num_streams;
  ScratchArena::Scope scope(context.scratch);
  const TensorView pre = context.scratch->Take(context.dtype(), {tokens, count});
  const TensorView post = context.scratch->Take(context.dtype(), {tokens, count});
  const TensorView mix = context.scratch->Take(context.dtype(), {tokens, count, count});
  const TensorView x = context.scratch->Take(context.dtype(), {tokens, hidden_});
  const TensorView y = context.scratch->Take(context.dtype(), {tokens, hidden_});

  context.backend->HyperCoefficients(*context.stream,
                                     {.streams = streams,
                                      .fn = weights.fn,
                                      .base = weights.base,
                                      .scale = weights.scale,
                                      .norm_eps = norm_eps_,
                                      .eps = hyper_.eps,
                                      .sinkhorn_iters = hyper_.sinkhorn_iters,
                                      .pre = pre,
                                      .post = post,
                                      .mix = mix});
  context.backend->HyperCollapse(*context.stream, streams, pre, x);
  TESSERA_RETURN_IF_ERROR(sublayer(x, y));
  context.backend->HyperExpand(*context.stream, y, post, mix, streams);
  return absl::OkStatus();
}

void HyperConnections::Collapse(const StepContext& context, const HyperWeights& weights,
                                TensorView streams, TensorView out) const {
  context.backend->HyperHead(*context.stream,
                             {.streams = streams,
                              .fn = weights.fn,
                              .base = weights.base,
                              .scale = weights.scale,
                              .norm_eps = norm_eps_,
                              .eps = hyper_.eps,
                              .sinkhorn_iters = 0,
                              .pre = {},
                              .post = {},
                              .mix = {}},
                             out);
}

}  // namespace tessera::worker
