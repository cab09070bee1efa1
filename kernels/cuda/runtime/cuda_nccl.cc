#include "kernels/cuda/runtime/cuda_nccl.h"

#include <cstring>

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::kernels::cuda {
namespace {

absl::StatusCode CodeOf(ncclResult_t result) {
  switch (result) {
    case ncclSystemError:
      return absl::StatusCode::kUnavailable;
    case ncclInvalidArgument:
      return absl::StatusCode::kInvalidArgument;
    case ncclInvalidUsage:
      return absl::StatusCode::kFailedPrecondition;
    default:
      return absl::StatusCode::kInternal;
  }
}

absl::Status Failure(ncclResult_t result, std::string_view call, ncclComm_t comm) {
  return StatusF(CodeOf(result), "{}: {} ({})", call, ncclGetErrorString(result),
                 ncclGetLastError(comm));
}

absl::StatusOr<ncclDataType_t> TypeOf(model::DType type) {
  switch (type) {
    case model::DType::kF32:
      return ncclFloat32;
    case model::DType::kBF16:
      return ncclBfloat16;
    case model::DType::kU8:
      return ncclUint8;
    default:
      return InvalidArgumentF("NCCL: values of type {}, expected F32, BF16 or U8",
                              model::DTypeName(type));
  }
}

}  // namespace

static_assert(sizeof(ncclUniqueId) == DeviceGroupId::kBytes);

CudaNcclId::CudaNcclId(std::shared_ptr<CudaMachine> machine, const DeviceGroupId& bytes)
    : machine_(std::move(machine)), made_(ncclSuccess) {
  std::memcpy(&id_, bytes.bytes.data(), sizeof(id_));
}

absl::StatusOr<DeviceGroupId> CudaNcclId::bytes() const {
  if (made_ != ncclSuccess) {
    return Failure(made_, "ncclGetUniqueId", nullptr);
  }
  DeviceGroupId bytes;
  std::memcpy(bytes.bytes.data(), &id_, sizeof(id_));
  return bytes;
}

absl::StatusOr<CudaNcclId> CudaNcclId::Of(std::shared_ptr<CudaMachine> machine,
                                          const DeviceGroupId& bytes) {
  return CudaNcclId(std::move(machine), bytes);
}

absl::StatusOr<std::unique_ptr<CudaNcclComm>> CudaNcclComm::InitRank(const CudaNcclId& id,
                                                                     int num_ranks,
                                                                     int rank,
                                                                     int device) {
  if (id.made_ != ncclSuccess) {
    return Failure(id.made_, "ncclGetUniqueId", nullptr);
  }
  TESSERA_RETURN_IF_ERROR(id.machine_->Use(device));
  std::unique_ptr<CudaNcclComm> made(
      new CudaNcclComm(id.machine_, rank, num_ranks, device));
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  const ncclResult_t result =
      ncclCommInitRankConfig(&made->comm_, num_ranks, id.id_, rank, &config);
  if (result != ncclSuccess && result != ncclInProgress) {
    return Failure(result, "ncclCommInitRankConfig", made->comm_);
  }
  return made;
}

CudaNcclComm::~CudaNcclComm() {
  if (comm_ != nullptr) {
    static_cast<void>(ncclCommDestroy(comm_));  // has nobody to tell
  }
}

absl::Status CudaNcclComm::Begin(std::string_view call) const {
  if (comm_ == nullptr) {
    return absl::FailedPreconditionError(
        fmt::format("{}: the communicator was aborted", call));
  }
  return machine_->Use(device_);
}

absl::StatusOr<NcclState> CudaNcclComm::State(ncclResult_t result,
                                              std::string_view call) const {
  switch (result) {
    case ncclSuccess:
      return NcclState::kSuccess;
    case ncclInProgress:
      return NcclState::kInProgress;
    case ncclRemoteError:
      return NcclState::kRemoteError;
    default:
      return Failure(result, call, comm_);
  }
}

absl::StatusOr<NcclState> CudaNcclComm::GetAsyncError() {
  TESSERA_RETURN_IF_ERROR(Begin("ncclCommGetAsyncError"));
  ncclResult_t result = ncclSuccess;
  const ncclResult_t asked = ncclCommGetAsyncError(comm_, &result);
  return State(asked == ncclSuccess ? result : asked, "ncclCommGetAsyncError");
}

absl::Status CudaNcclComm::GroupStart() {
  TESSERA_RETURN_IF_ERROR(Begin("ncclGroupStart"));
  return State(ncclGroupStart(), "ncclGroupStart").status();
}

absl::StatusOr<NcclState> CudaNcclComm::GroupEnd() {
  TESSERA_RETURN_IF_ERROR(Begin("ncclGroupEnd"));
  return State(ncclGroupEnd(), "ncclGroupEnd");
}

absl::StatusOr<NcclState> CudaNcclComm::Send(const void* data, size_t count,
                                             model::DType type, int peer,
                                             CudaStream& stream) {
  TESSERA_RETURN_IF_ERROR(Begin("ncclSend"));
  TESSERA_ASSIGN_OR_RETURN(const ncclDataType_t values, TypeOf(type));
  return State(ncclSend(data, count, values, peer, comm_, stream.native()), "ncclSend");
}

absl::StatusOr<NcclState> CudaNcclComm::Recv(void* data, size_t count, model::DType type,
                                             int peer, CudaStream& stream) {
  TESSERA_RETURN_IF_ERROR(Begin("ncclRecv"));
  TESSERA_ASSIGN_OR_RETURN(const ncclDataType_t values, TypeOf(type));
  return State(ncclRecv(data, count, values, peer, comm_, stream.native()), "ncclRecv");
}

absl::StatusOr<NcclState> CudaNcclComm::AllGather(const void* send, void* recv,
                                                  size_t count, model::DType type,
                                                  CudaStream& stream) {
  TESSERA_RETURN_IF_ERROR(Begin("ncclAllGather"));
  TESSERA_ASSIGN_OR_RETURN(const ncclDataType_t values, TypeOf(type));
  return State(ncclAllGather(send, recv, count, values, comm_, stream.native()),
               "ncclAllGather");
}

absl::StatusOr<NcclState> CudaNcclComm::Broadcast(const void* send, void* recv,
                                                  size_t count, model::DType type,
                                                  int root, CudaStream& stream) {
  TESSERA_RETURN_IF_ERROR(Begin("ncclBroadcast"));
  TESSERA_ASSIGN_OR_RETURN(const ncclDataType_t values, TypeOf(type));
  return State(ncclBroadcast(send, recv, count, values, root, comm_, stream.native()),
               "ncclBroadcast");
}

void CudaNcclComm::Abort() {
  if (comm_ != nullptr) {
    static_cast<void>(machine_->Use(device_));
    static_cast<void>(ncclCommAbort(std::exchange(comm_, nullptr)));
  }
}

}  // namespace tessera::kernels::cuda
