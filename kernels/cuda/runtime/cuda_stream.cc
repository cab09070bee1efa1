#include "kernels/cuda/runtime/cuda_stream.h"

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"

#include "common/status_macros.h"
#include "kernels/cuda/runtime/cuda_error.h"

namespace tessera::kernels::cuda {
namespace {

// Of the calling thread's device.
absl::StatusOr<int64_t> FreeBytes() {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  TESSERA_RETURN_IF_ERROR(
      CudaStatus(cudaMemGetInfo(&free_bytes, &total_bytes), "cudaMemGetInfo"));
  return static_cast<int64_t>(free_bytes);
}

}  // namespace

// Destructors have nobody to tell: an error of the device sticks to it, and the next
// Synchronize returns it.

CudaEvent::~CudaEvent() {
  if (event_ != nullptr) {
    static_cast<void>(cudaEventDestroy(event_));
  }
}

absl::Status CudaEvent::Synchronize() {
  if (event_ == nullptr) {
    return absl::OkStatus();
  }
  return CudaStatus(cudaEventSynchronize(event_), "cudaEventSynchronize");
}

absl::StatusOr<bool> CudaEvent::Query() {
  if (event_ == nullptr) {
    return true;
  }
  const cudaError_t result = cudaEventQuery(event_);
  if (result == cudaErrorNotReady) {
    return false;
  }
  TESSERA_RETURN_IF_ERROR(CudaStatus(result, "cudaEventQuery"));
  return true;
}

absl::StatusOr<std::unique_ptr<CudaStream>> CudaStream::Create(
    std::shared_ptr<CudaMachine> machine, int device) {
  TESSERA_RETURN_IF_ERROR(machine->Use(device));
  cudaStream_t stream = nullptr;
  // Ordered by events alone, not by the default stream as well.
  TESSERA_RETURN_IF_ERROR(
      CudaStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                 "cudaStreamCreateWithFlags"));
  return std::unique_ptr<CudaStream>(new CudaStream(std::move(machine), device, stream));
}

CudaStream::CudaStream(std::shared_ptr<CudaMachine> machine, int device,
                       cudaStream_t stream)
    : machine_(std::move(machine)), device_(device), stream_(stream) {}

CudaStream::~CudaStream() {
  static_cast<void>(cudaStreamSynchronize(stream_));
  static_cast<void>(cudaStreamDestroy(stream_));
}

absl::Status CudaStream::MemcpyAsync(void* to, const void* from, size_t bytes) {
  TESSERA_RETURN_IF_ERROR(Use());
  return CudaStatus(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_),
                    "cudaMemcpyAsync");
}

absl::Status CudaStream::Memcpy2DAsync(void* to, const void* from,
                                       const CopyShape& shape) {
  if (shape.row_bytes == 0 || shape.rows == 0) {
    return absl::OkStatus();
  }
  if (shape.rows == 1) {  // has no pitch
    return MemcpyAsync(to, from, shape.row_bytes);
  }
  TESSERA_RETURN_IF_ERROR(Use());
  return CudaStatus(
      cudaMemcpy2DAsync(to, shape.to_pitch, from, shape.from_pitch, shape.row_bytes,
                        shape.rows, cudaMemcpyDefault, stream_),
      "cudaMemcpy2DAsync");
}

absl::Status CudaStream::MemsetAsync(void* to, uint8_t value, size_t bytes) {
  TESSERA_RETURN_IF_ERROR(Use());
  return CudaStatus(cudaMemsetAsync(to, value, bytes, stream_), "cudaMemsetAsync");
}

absl::StatusOr<void*> CudaStream::MallocAsync(size_t bytes) {
  TESSERA_RETURN_IF_ERROR(Use());
  void* memory = nullptr;
  TESSERA_RETURN_IF_ERROR(
      CudaStatus(cudaMallocAsync(&memory, bytes, stream_), "cudaMallocAsync"));
  return memory;
}

absl::Status CudaStream::FreeAsync(void* memory) {
  TESSERA_RETURN_IF_ERROR(Use());
  return CudaStatus(cudaFreeAsync(memory, stream_), "cudaFreeAsync");
}

absl::Status CudaStream::Record(CudaEvent& event) {
  TESSERA_RETURN_IF_ERROR(Use());
  if (event.event_ == nullptr) {
    TESSERA_RETURN_IF_ERROR(
        CudaStatus(cudaEventCreateWithFlags(&event.event_, cudaEventDisableTiming),
                   "cudaEventCreateWithFlags"));
  }
  return CudaStatus(cudaEventRecord(event.event_, stream_), "cudaEventRecord");
}

absl::Status CudaStream::Wait(const CudaEvent& event) {
  if (event.event_ == nullptr) {
    return absl::OkStatus();
  }
  TESSERA_RETURN_IF_ERROR(Use());
  return CudaStatus(cudaStreamWaitEvent(stream_, event.event_, 0), "cudaStreamWaitEvent");
}

absl::Status CudaStream::Synchronize() {
  const absl::Status status =
      CudaStatus(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  return error_.ok() ? status : error_;
}

absl::StatusOr<bool> CudaStream::Query() {
  const cudaError_t result = cudaStreamQuery(stream_);
  TESSERA_RETURN_IF_ERROR(error_);
  if (result == cudaErrorNotReady) {
    return false;
  }
  TESSERA_RETURN_IF_ERROR(CudaStatus(result, "cudaStreamQuery"));
  return true;
}

absl::Status CudaStream::BeginCapture() {
  TESSERA_RETURN_IF_ERROR(Use());
  // Thread-local: what other ranks of the process call is not our capture's business.
  return CudaStatus(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal),
                    "cudaStreamBeginCapture");
}

absl::StatusOr<CudaGraph> CudaStream::EndCapture() {
  cudaGraph_t captured = nullptr;
  TESSERA_RETURN_IF_ERROR(
      CudaStatus(cudaStreamEndCapture(stream_, &captured), "cudaStreamEndCapture"));
  const absl::Cleanup destroy = [captured] {
    static_cast<void>(cudaGraphDestroy(captured));
  };
  size_t num_nodes = 0;
  TESSERA_RETURN_IF_ERROR(
      CudaStatus(cudaGraphGetNodes(captured, nullptr, &num_nodes), "cudaGraphGetNodes"));
  TESSERA_ASSIGN_OR_RETURN(const int64_t free_before, FreeBytes());
  cudaGraphExec_t ready = nullptr;
  TESSERA_RETURN_IF_ERROR(
      CudaStatus(cudaGraphInstantiate(&ready, captured, 0), "cudaGraphInstantiate"));
  CudaGraph::Handle handle(
      ready, [](cudaGraphExec_t exec) { static_cast<void>(cudaGraphExecDestroy(exec)); });
  // Now, not at the first launch: that one is a step.
  TESSERA_RETURN_IF_ERROR(CudaStatus(cudaGraphUpload(ready, stream_), "cudaGraphUpload"));
  TESSERA_ASSIGN_OR_RETURN(const int64_t free_after, FreeBytes());
  return CudaGraph(std::move(handle),
                   {.num_nodes = static_cast<int64_t>(num_nodes),
                    .device_bytes = std::max<int64_t>(0, free_before - free_after)});
}

absl::Status CudaStream::Launch(const CudaGraph& graph) {
  TESSERA_RETURN_IF_ERROR(Use());
  return CudaStatus(cudaGraphLaunch(graph.handle_.get(), stream_), "cudaGraphLaunch");
}

}  // namespace tessera::kernels::cuda
