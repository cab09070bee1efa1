#include "worker/layers/plain_residual.h"

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

namespace {

// [T, 1, d] -> [T, d].
TensorView OnlyStream(TensorView streams) {
  return streams.Reshape({streams.dim(0), streams.dim(2)});
}

}  // namespace

size_t PlainResidual::scratch_bytes(int64_t max_tokens) const {
  return ScratchArena::Bytes(kernels::DType::kF64, max_tokens * hidden_) +
         ScratchArena::kAlignment;
}

void PlainResidual::Begin(const StepContext& context, TensorView x, TensorView streams) {
  context.backend->Copy(*context.stream, x, OnlyStream(streams));
}

absl::Status PlainResidual::Around(const StepContext& context, const HyperWeights&,
                                   TensorView streams, Sublayer sublayer) {
  ScratchArena::Scope scope(context.scratch);
  const TensorView y =
      context.scratch->Take(context.dtype(), {context.num_tokens, hidden_});
  const TensorView x = OnlyStream(streams);
  TESSERA_RETURN_IF_ERROR(sublayer(x, y));
  context.backend->Add(*context.stream, y, x);
  return absl::OkStatus();
}

void PlainResidual::Collapse(const StepContext& context, const HyperWeights&,
                             TensorView streams, TensorView out) const {
  context.backend->Copy(*context.stream, OnlyStream(streams), out);
}

}  // namespace tessera::worker
