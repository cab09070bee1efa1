// NcclStream: the DeviceCommunicator of a rank of an NCCL group (nccl_group.h), whose
// device and end it shares.
//
// AllReduceSum is the recursive doubling of tree_sum.h with additions by the backend: at
// distance 1, 2, 4… neighbours exchange their sums, and each adds the other's to its own.
// Both then have the same bits, though one has added lower + higher and the other higher
// + lower: float addition commutes, but for which operand's payload a NaN keeps.
#ifndef TESSERA_WORKER_COMM_NCCL_NCCL_STREAM_H_
#define TESSERA_WORKER_COMM_NCCL_NCCL_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "kernels/runtime/device_collectives.h"
#include "worker/comm/communicator.h"
#include "worker/comm/nccl/group_end.h"
#include "worker/comm/stream_communicator.h"

namespace tessera::worker {

class NcclStream final : public DeviceCommunicator {
 public:
  // All that it is made of must outlive it; `comm` is whose on_stream it is. `received`:
  // memory of the device for a piece of an operand of AllReduceSum.
  NcclStream(const Communicator* comm, kernels::DeviceCollectives* device,
             std::span<std::byte> received, const CommOptions& options, Clock* clock,
             std::shared_ptr<GroupEnd> end);

  int rank() const override { return device_.rank(); }
  int size() const override { return device_.size(); }
  absl::Status AllReduceSum(const Place& place, kernels::TensorView x) override;
  absl::Status AllGather(const Place& place, std::span<const std::byte> send,
                         std::span<const int64_t> counts,
                         std::span<std::byte> recv) override;
  absl::Status Exchange(kernels::Stream& stream,
                        std::span<const kernels::DeviceTransfer> transfers) override;
  absl::Status Check() override;
  void End(std::string_view reason) override;
  absl::Duration timeout() const override { return options_.timeout; }
  absl::Duration host_time() const override { return host_time_; }

 private:
  // Runs `enqueue` unless the group is dead or the arguments are bad; an error of either
  // kills it.
  absl::Status Run(const absl::Status& arguments,
                   absl::FunctionRef<absl::Status()> enqueue);
  // Until the operation that `issued` is of is in its stream.
  absl::Status AwaitEnqueued(const absl::Status& issued);
  // Of parts that differ: each to every peer, and from it.
  absl::Status GatherParts(const Place& place, std::span<const std::byte> send,
                           std::span<const int64_t> counts, std::span<std::byte> recv);

  const Communicator& comm_;
  kernels::DeviceCollectives& device_;
  const std::span<std::byte> received_;
  const CommOptions options_;
  Clock* const clock_;
  const std::shared_ptr<GroupEnd> end_;
  std::vector<kernels::DeviceTransfer> transfers_;  // room for those of GatherParts
  absl::Time deadline_;                             // of the call in progress
  absl::Duration host_time_;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_NCCL_NCCL_STREAM_H_
