#include "worker/layers/step_context.h"

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/status_macros.h"
#include "kernels/tensor_view.h"
#include "model/formats/dtype.h"

namespace tessera::worker {
namespace {

StreamCommunicator::Place PlaceOf(const StepContext& context) {
  return {.backend = context.backend, .stream = context.stream};
}

}  // namespace

void BookCollective(const StepContext& context, absl::Duration time, int64_t bytes) {
  if (context.collective_ns != nullptr) {
    *context.collective_ns += absl::ToInt64Nanoseconds(time);
  }
  if (context.collective_bytes != nullptr) {
    *context.collective_bytes += bytes;
  }
}

absl::Status ReduceOverTp(const StepContext& context, kernels::TensorView x) {
  if (context.tp->size() == 1 || x.empty()) {
    return absl::OkStatus();
  }
  const auto bytes = static_cast<int64_t>(
      model::DTypeBytes(x.dtype, static_cast<size_t>(x.num_elements())));
  const absl::Duration before = context.tp->host_time();
  TESSERA_RETURN_IF_ERROR(context.tp->AllReduceSum(PlaceOf(context), x));
  BookCollective(context, context.tp->host_time() - before, bytes);
  return absl::OkStatus();
}

absl::Status GatherOverTp(const StepContext& context, std::span<const std::byte> send,
                          std::span<const int64_t> counts, std::span<std::byte> recv) {
  const absl::Duration before = context.tp->host_time();
  TESSERA_RETURN_IF_ERROR(context.tp->AllGather(PlaceOf(context), send, counts, recv));
  BookCollective(context, context.tp->host_time() - before,
                 static_cast<int64_t>(recv.size()));
  return absl::OkStatus();
}

}  // namespace tessera::worker
