#include "kernels/cuda/runtime/cuda_flag.h"

#include <atomic>
#include <string_view>

#include <cuda_runtime_api.h>

#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/cuda/runtime/cuda_driver.h"
#include "kernels/cuda/runtime/cuda_error.h"
#include "kernels/cuda/runtime/cuda_stream.h"

namespace tessera::kernels::cuda {
namespace {

absl::Status DriverStatus(CUresult result, std::string_view call) {
  switch (result) {
    case CUDA_SUCCESS:
      return absl::OkStatus();
    case CUDA_ERROR_NOT_SUPPORTED:
      return StatusF(absl::StatusCode::kUnimplemented, "{}: not supported", call);
    default:
      return InternalF("{}: error {}", call, static_cast<int>(result));
  }
}

}  // namespace

// Waits of 64 bits are an attribute of a device that the runtime does not name.
absl::Status CudaFlag::CheckSupport(const CudaMachine& machine) {
  TESSERA_ASSIGN_OR_RETURN(
      const auto attribute,
      DriverCall<decltype(&cuDeviceGetAttribute)>("cuDeviceGetAttribute"));
  for (int device = 0; device < machine.num_devices(); ++device) {
    int has_waits = 0;
    TESSERA_RETURN_IF_ERROR(DriverStatus(
        attribute(&has_waits, CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS, device),
        "cuDeviceGetAttribute"));
    if (has_waits == 0) {
      return StatusF(absl::StatusCode::kUnimplemented,
                     "device {} has no streams that wait for a word of 64 bits", device);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<CudaFlag>> CudaFlag::Create(
    std::shared_ptr<CudaMachine> machine) {
  TESSERA_RETURN_IF_ERROR(CheckSupport(*machine));
  TESSERA_ASSIGN_OR_RETURN(const WaitCall wait,
                           DriverCall<WaitCall>("cuStreamWaitValue64"));
  TESSERA_ASSIGN_OR_RETURN(void* const word, machine->MallocHost(sizeof(uint64_t)));
  std::unique_ptr<CudaFlag> flag(
      new CudaFlag(std::move(machine), static_cast<uint64_t*>(word), wait));
  flag->Store(0);
  void* device = nullptr;
  TESSERA_RETURN_IF_ERROR(
      CudaStatus(cudaHostGetDevicePointer(&device, word, 0), "cudaHostGetDevicePointer"));
  flag->address_ = reinterpret_cast<CUdeviceptr>(device);
  return flag;
}

CudaFlag::~CudaFlag() { static_cast<void>(machine_->Free(word_)); }

void CudaFlag::Store(uint64_t value) {
  std::atomic_ref<uint64_t>(*word_).store(value, std::memory_order_release);
}

uint64_t CudaFlag::Load() const {
  return std::atomic_ref<uint64_t>(*word_).load(std::memory_order_acquire);
}

absl::Status CudaStream::WaitFlag(const CudaFlag& flag, uint64_t value) {
  TESSERA_RETURN_IF_ERROR(Use());
  return DriverStatus(flag.wait_(stream_, flag.address_, value, CU_STREAM_WAIT_VALUE_GEQ),
                      "cuStreamWaitValue64");
}

}  // namespace tessera::kernels::cuda
