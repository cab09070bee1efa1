#include "worker/layers/step_context.h"

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/status_macros.h"
#include "kernels/tensor_view.h"
#include "model/formats/dtype.h"

namespace tessera::worker {

absl::Status TimedCollective(const StepContext& context, int64_t bytes,
                             absl::FunctionRef<absl::Status()> collective) {
  TESSERA_RETURN_IF_ERROR(context.stream->Synchronize());
  const absl::Time begin = context.clock->Now();
  absl::Status status = collective();
  if (context.collective_ns != nullptr) {
    *context.collective_ns += absl::ToInt64Nanoseconds(context.clock->Now() - begin);
  }
  if (context.collective_bytes != nullptr) {
    *context.collective_bytes += bytes;
  }
  return status;
}

absl::Status ReduceOverTp(const StepContext& context, kernels::TensorView x) {
  if (context.tp->size() == 1 || x.empty()) {
    return absl::OkStatus();
  }
  const auto bytes = static_cast<int64_t>(
      model::DTypeBytes(x.dtype, static_cast<size_t>(x.num_elements())));
  return TimedCollective(context, bytes, [&] { return context.tp->AllReduceSum(x); });
}

}  // namespace tessera::worker
