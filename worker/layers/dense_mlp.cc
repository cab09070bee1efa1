#include "worker/layers/dense_mlp.h"

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"

#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "worker/layers/scratch_arena.h"
#include "worker/layers/step_context.h"

namespace tessera::worker {

using kernels::KSplit;
using kernels::TensorView;

size_t DenseMlp::scratch_bytes(int64_t max_tokens) const {
  return 2 * ScratchArena::Bytes(kernels::DType::kF64, max_tokens * weights_.gate.rows);
}

void DenseMlp::Partial(const StepContext& context, TensorView x, TensorView out) {
  ScratchArena::Scope scope(context.scratch);
  const int64_t width = weights_.gate.rows;
  TensorView gate = context.scratch->Take(context.dtype(), {context.num_tokens, width});
  TensorView up = context.scratch->Take(context.dtype(), {context.num_tokens, width});
  context.backend->Linear(*context.stream, x, weights_.gate, KSplit::Whole(), gate);
  context.backend->Linear(*context.stream, x, weights_.up, KSplit::Whole(), up);
  context.backend->SiluMul(*context.stream, gate, up, swiglu_limit_, gate);
  context.backend->Linear(*context.stream, gate, weights_.down.weight,
                          weights_.down.split, out);
}

absl::Status DenseMlp::Forward(const StepContext& context, TensorView x, TensorView out) {
  Partial(context, x, out);
  return ReduceOverTp(context, out);
}

}  // namespace tessera::worker
