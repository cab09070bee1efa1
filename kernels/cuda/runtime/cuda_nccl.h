// CudaNcclComm: one rank of an NCCL communicator, on a GPU of this process, with the
// calls of SimNcclComm (kernels/cuda_sim/sim_nccl.h), each one call of NCCL 2.28.
// Communicators are non-blocking (ncclConfig_t::blocking = 0): whoever waits polls, and
// gives up with Abort. Built where TESSERA_CUDA=ON and TESSERA_NCCL=ON.
#ifndef TESSERA_KERNELS_CUDA_RUNTIME_CUDA_NCCL_H_
#define TESSERA_KERNELS_CUDA_RUNTIME_CUDA_NCCL_H_

#include <cstddef>
#include <memory>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <nccl.h>

#include "kernels/cuda/primitives/device_types.h"
#include "kernels/cuda/runtime/cuda_machine.h"
#include "kernels/cuda/runtime/cuda_stream.h"
#include "kernels/runtime/device_group_id.h"
#include "model/formats/dtype.h"

namespace tessera::kernels::cuda {

// ncclUniqueId: names a communicator that is to be made. Copyable.
class CudaNcclId {
 public:
  // Its bytes, by which other ranks have it. The error of ncclGetUniqueId.
  absl::StatusOr<DeviceGroupId> bytes() const;
  // Any bytes: what is wrong with them NCCL says, or the group never forms.
  static absl::StatusOr<CudaNcclId> Of(std::shared_ptr<CudaMachine> machine,
                                       const DeviceGroupId& bytes);

 private:
  friend class CudaNcclComm;
  explicit CudaNcclId(std::shared_ptr<CudaMachine> machine)
      : machine_(std::move(machine)), made_(ncclGetUniqueId(&id_)) {}
  CudaNcclId(std::shared_ptr<CudaMachine> machine, const DeviceGroupId& bytes);

  std::shared_ptr<CudaMachine> machine_;
  ncclUniqueId id_ = {};
  ncclResult_t made_;  // a failure is InitRank's
};

// One thread uses a communicator at a time. The streams of its operations must outlive
// the operations.
class CudaNcclComm {
 public:
  static constexpr bool kReachesProcesses = true;

  // ncclGetUniqueId.
  static CudaNcclId GetUniqueId(std::shared_ptr<CudaMachine> machine) {
    return CudaNcclId(std::move(machine));
  }
  // ncclCommInitRankConfig. Complete once all ranks have called it, which GetAsyncError
  // tells. kInvalidArgument: not such a rank or device.
  static absl::StatusOr<std::unique_ptr<CudaNcclComm>> InitRank(const CudaNcclId& id,
                                                                int num_ranks, int rank,
                                                                int device);
  // ncclCommDestroy, unless it was aborted.
  ~CudaNcclComm();
  CudaNcclComm(const CudaNcclComm&) = delete;
  CudaNcclComm& operator=(const CudaNcclComm&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }

  // ncclCommGetAsyncError. kFailedPrecondition after Abort; kUnavailable, kInternal: what
  // NCCL met.
  absl::StatusOr<NcclState> GetAsyncError();

  // ncclGroupStart, ncclGroupEnd, of the calling thread.
  absl::Status GroupStart();
  absl::StatusOr<NcclState> GroupEnd();
  absl::StatusOr<NcclState> Send(const void* data, size_t count, model::DType type,
                                 int peer, CudaStream& stream);
  absl::StatusOr<NcclState> Recv(void* data, size_t count, model::DType type, int peer,
                                 CudaStream& stream);
  absl::StatusOr<NcclState> AllGather(const void* send, void* recv, size_t count,
                                      model::DType type, CudaStream& stream);
  absl::StatusOr<NcclState> Broadcast(const void* send, void* recv, size_t count,
                                      model::DType type, int root, CudaStream& stream);

  // ncclCommAbort. Idempotent.
  void Abort();

 private:
  CudaNcclComm(std::shared_ptr<CudaMachine> machine, int rank, int size, int device)
      : machine_(std::move(machine)), rank_(rank), size_(size), device_(device) {}

  // Before a call: the thread's device, and that there is a communicator.
  absl::Status Begin(std::string_view call) const;
  absl::StatusOr<NcclState> State(ncclResult_t result, std::string_view call) const;

  const std::shared_ptr<CudaMachine> machine_;
  const int rank_;
  const int size_;
  const int device_;
  ncclComm_t comm_ = nullptr;  // none after Abort
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_RUNTIME_CUDA_NCCL_H_
