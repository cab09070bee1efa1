#include "worker/comm/host_stream_communicator.h"

#include "common/status_macros.h"

namespace tessera::worker {

absl::Status HostStreamCommunicator::AllReduceSum(const Place& place,
                                                  kernels::TensorView x) {
  TESSERA_RETURN_IF_ERROR(place.stream->Synchronize());
  return comm_.AllReduceSum(x);
}

absl::Status HostStreamCommunicator::AllGather(const Place& place,
                                               std::span<const std::byte> send,
                                               std::span<const int64_t> counts,
                                               std::span<std::byte> recv) {
  TESSERA_RETURN_IF_ERROR(place.stream->Synchronize());
  return comm_.AllGather(send, counts, recv);
}

}  // namespace tessera::worker
