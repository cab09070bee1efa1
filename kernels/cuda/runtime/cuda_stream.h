// CudaStream, CudaEvent, CudaGraph: the streams, events and graphs of a CudaMachine, with
// the calls of SimStream, SimEvent and SimGraph (kernels/cuda_sim/sim_stream.h). What a
// kernel does wrong is kInternal of the next Synchronize, and of every later call: the
// process then gives the device up.
#ifndef TESSERA_KERNELS_CUDA_RUNTIME_CUDA_STREAM_H_
#define TESSERA_KERNELS_CUDA_RUNTIME_CUDA_STREAM_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <cuda_runtime_api.h>

#include "kernels/cuda/primitives/device_types.h"
#include "kernels/cuda/runtime/cuda_machine.h"

namespace tessera::kernels::cuda {

class CudaFlag;

// What a capture recorded, ready to be launched. Kernel arguments are copies of the time
// of the capture. Copyable; shares what it holds. Must outlive its launches.
class CudaGraph {
 public:
  using Handle = std::shared_ptr<std::remove_pointer_t<cudaGraphExec_t>>;
  struct Size {
    int64_t num_nodes = 0;
    int64_t device_bytes = 0;
  };
  CudaGraph(Handle handle, const Size& size) : handle_(std::move(handle)), size_(size) {}

  // As of StreamGraph (kernels/runtime/stream_graph.h).
  int64_t num_nodes() const { return size_.num_nodes; }
  int64_t device_bytes() const { return size_.device_bytes; }

 private:
  friend class CudaStream;
  Handle handle_;
  Size size_;
};

// One thread uses an event at a time. Made on the device of the stream that first records
// it.
class CudaEvent {
 public:
  explicit CudaEvent(std::shared_ptr<CudaMachine> machine)
      : machine_(std::move(machine)) {}
  ~CudaEvent();
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;

  // Until the last record is reached; at once if there is none. kFailedPrecondition if
  // that is part of a capture.
  absl::Status Synchronize();
  // Whether the last record is reached; true if there is none. Never waits.
  absl::StatusOr<bool> Query();

 private:
  friend class CudaStream;
  const std::shared_ptr<CudaMachine> machine_;
  cudaEvent_t event_ = nullptr;
};

// One thread uses a stream at a time.
class CudaStream {
 public:
  // kInvalidArgument: no such device.
  static absl::StatusOr<std::unique_ptr<CudaStream>> Create(
      std::shared_ptr<CudaMachine> machine, int device);
  // Waits for what is enqueued.
  ~CudaStream();
  CudaStream(const CudaStream&) = delete;
  CudaStream& operator=(const CudaStream&) = delete;

  // Host memory that is not pinned is read before the call returns, and written before
  // it returns.
  absl::Status MemcpyAsync(void* to, const void* from, size_t bytes);
  absl::Status Memcpy2DAsync(void* to, const void* from, const CopyShape& shape);
  absl::Status MemsetAsync(void* to, uint8_t value, size_t bytes);
  // Memory that this stream may use from here on, others after an event.
  absl::StatusOr<void*> MallocAsync(size_t bytes);
  absl::Status FreeAsync(void* memory);
  absl::Status Record(CudaEvent& event);
  absl::Status Wait(const CudaEvent& event);
  // Until the flag holds `value` or more (cuda_flag.h). A capture records it as a node.
  absl::Status WaitFlag(const CudaFlag& flag, uint64_t value);
  // Until all that is enqueued has run. The first error of a launch on this stream, or of
  // the device.
  absl::Status Synchronize();
  // Whether all that is enqueued has run. Never waits. Errors are Synchronize's.
  absl::StatusOr<bool> Query();

  // Of the calls of this thread.
  absl::Status BeginCapture();
  // kFailedPrecondition: a stream that joined the capture was not joined back.
  absl::StatusOr<CudaGraph> EndCapture();
  absl::Status Launch(const CudaGraph& graph);

  // For Launch of nvcc_launch.cuh: a kernel's launch returns nothing, so its first error
  // waits for Synchronize.
  cudaStream_t native() const { return stream_; }
  absl::Status Use() const { return machine_->Use(device_); }
  void Note(const absl::Status& status) { error_.Update(status); }

 private:
  CudaStream(std::shared_ptr<CudaMachine> machine, int device, cudaStream_t stream);

  const std::shared_ptr<CudaMachine> machine_;
  const int device_;
  const cudaStream_t stream_;
  absl::Status error_;
};

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_RUNTIME_CUDA_STREAM_H_
