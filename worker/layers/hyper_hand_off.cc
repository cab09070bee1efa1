#include "worker/layers/hyper_hand_off.h"

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"

#include "common/check.h"
#include "common/status_macros.h"
#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "worker/layers/scratch_arena.h"
#include "worker/layers/step_context.h"

namespace tessera::worker {

using kernels::TensorView;

namespace {

// Stream 0 of [n, M, d] as rows [n, d], M d values apart.
TensorView FirstStream(TensorView streams) {
  TensorView rows(streams.data, streams.dtype, {streams.dim(0), streams.dim(2)});
  rows.strides[0] = streams.stride(0);
  return rows;
}

}  // namespace

size_t HyperHandOff::scratch_bytes(int64_t max_tokens) const {
  const int64_t streams = hyper_.num_streams;
  return ScratchArena::Bytes(kernels::DType::kF64,
                             max_tokens * (streams * (streams + 2) + 2 * hidden_)) +
         5 * ScratchArena::kAlignment;
}

void HyperHandOff::Begin(const StepContext& context, TensorView x, TensorView streams) {
  context.backend->ExpandStreams(*context.stream, x, streams);
  pre_ = context.scratch->Take(context.dtype(), {context.num_tokens, hyper_.num_streams});
  is_first_ = true;
}

void HyperHandOff::Read(const StepContext& context, TensorView streams,
                        TensorView out) const {
  if (is_first_) {
    context.backend->Copy(*context.stream, FirstStream(streams), out);
  } else {
    context.backend->HyperCollapse(*context.stream, streams, pre_, out);
  }
}

absl::Status HyperHandOff::Around(const StepContext& context, const HyperWeights& weights,
                                  TensorView streams, Sublayer sublayer) {
  const int64_t tokens = context.num_tokens;
  const int64_t count = hyper_.num_streams;
  TESSERA_CHECK(pre_.rank == 2 && pre_.dim(0) == tokens);
  ScratchArena::Scope scope(context.scratch);
  const TensorView post = context.scratch->Take(context.dtype(), {tokens, count});
  const TensorView mix = context.scratch->Take(context.dtype(), {tokens, count, count});
  const TensorView x = context.scratch->Take(context.dtype(), {tokens, hidden_});
  const TensorView y = context.scratch->Take(context.dtype(), {tokens, hidden_});

  Read(context, streams, x);
  // Overwrites the weights that were just used.
  context.backend->HyperCoefficients(*context.stream,
                                     {.streams = streams,
                                      .fn = weights.fn,
                                      .base = weights.base,
                                      .scale = weights.scale,
                                      .norm_eps = norm_eps_,
                                      .eps = hyper_.eps,
                                      .sinkhorn_iters = hyper_.sinkhorn_iters,
                                      .pre = pre_,
                                      .post = post,
                                      .mix = mix});
  is_first_ = false;
  TESSERA_RETURN_IF_ERROR(sublayer(x, y));
  context.backend->HyperExpand(*context.stream, y, post, mix, streams);
  return absl::OkStatus();
}

void HyperHandOff::End(const StepContext& context, TensorView streams) {
  ScratchArena::Scope scope(context.scratch);
  const TensorView x =
      context.scratch->Take(context.dtype(), {context.num_tokens, hidden_});
  Read(context, streams, x);
  context.backend->Copy(*context.stream, x, FirstStream(streams));
  pre_ = TensorView();
}

void HyperHandOff::Collapse(const StepContext& context, const HyperWeights&,
                            TensorView streams, TensorView out) const {
  context.backend->Copy(*context.stream, FirstStream(streams), out);
}

}  // namespace tessera::worker
