// HostStreamCommunicator: a StreamCommunicator over any Communicator, for ranks whose
// devices cannot reach each other: it waits for the stream, and the host does the rest.
// The backend's memory is then the host's as well (backend_traits.h).
#ifndef TESSERA_WORKER_COMM_HOST_STREAM_COMMUNICATOR_H_
#define TESSERA_WORKER_COMM_HOST_STREAM_COMMUNICATOR_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "worker/comm/communicator.h"
#include "worker/comm/stream_communicator.h"

namespace tessera::worker {

// Step thread only.
class HostStreamCommunicator final : public StreamCommunicator {
 public:
  // `comm` must outlive it.
  explicit HostStreamCommunicator(Communicator* comm) : comm_(*comm) {}

  int rank() const override { return comm_.rank(); }
  int size() const override { return comm_.size(); }
  absl::Status AllReduceSum(const Place& place, kernels::TensorView x) override;
  absl::Status AllGather(const Place& place, std::span<const std::byte> send,
                         std::span<const int64_t> counts,
                         std::span<std::byte> recv) override;
  // Of the whole group: what goes over the host is the host's.
  absl::Duration host_time() const override { return comm_.stats().time; }

 private:
  Communicator& comm_;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_HOST_STREAM_COMMUNICATOR_H_
