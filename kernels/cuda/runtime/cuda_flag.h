// CudaFlag: a 64-bit word of pinned memory that streams wait for (cuStreamWaitValue64,
// its comparison cyclic), with the calls of SimFlag (kernels/cuda_sim/sim_flag.h). The
// host stores it when what it has written is there; work that waits may be enqueued, or
// captured, long before. A wait that nobody ends holds its stream for ever, so whoever
// enqueues one has a deadline, and then stores the flag itself.
#ifndef TESSERA_KERNELS_CUDA_RUNTIME_CUDA_FLAG_H_
#define TESSERA_KERNELS_CUDA_RUNTIME_CUDA_FLAG_H_

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include <cuda.h>

#include "kernels/cuda/runtime/cuda_machine.h"

namespace tessera::kernels::cuda {

// Thread-safe.
class CudaFlag {
 public:
  // kUnimplemented where a device of the machine has no such waits.
  static absl::Status CheckSupport(const CudaMachine& machine);
  // Holds 0. Errors of CheckSupport; kResourceExhausted.
  static absl::StatusOr<std::unique_ptr<CudaFlag>> Create(
      std::shared_ptr<CudaMachine> machine);
  // Waits for the devices, as a free of pinned memory does: no stream may be waiting for
  // the flag.
  ~CudaFlag();
  CudaFlag(const CudaFlag&) = delete;
  CudaFlag& operator=(const CudaFlag&) = delete;

  // By the host: what this thread wrote before is there for whoever waited.
  void Store(uint64_t value);
  uint64_t Load() const;

 private:
  friend class CudaStream;
  using WaitCall = decltype(&cuStreamWaitValue64);

  CudaFlag(std::shared_ptr<CudaMachine> machine, uint64_t* word, WaitCall wait)
      : machine_(std::move(machine)), word_(word), wait_(wait) {}

  const std::shared_ptr<CudaMachine> machine_;
  uint64_t* const word_;
  CUdeviceptr address_ = 0;  // the devices' of the word
  const WaitCall wait_;
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_RUNTIME_CUDA_FLAG_H_
