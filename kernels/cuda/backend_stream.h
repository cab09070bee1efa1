// BackendStream: the Stream of a device's backend, a GpuStream and the first error of a
// call on it. Also for what shares the stream with the ops: collectives, graphs.
#ifndef TESSERA_KERNELS_CUDA_BACKEND_STREAM_H_
#define TESSERA_KERNELS_CUDA_BACKEND_STREAM_H_

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/status_macros.h"
#include "kernels/cuda/primitives/device.cuh"
#include "kernels/runtime/stream.h"

namespace tessera::kernels::cuda {

class BackendStream final : public Stream {
 public:
  explicit BackendStream(std::unique_ptr<GpuStream> stream)
      : stream_(std::move(stream)) {}

  absl::Status Synchronize() override {
    const absl::Status status = stream_->Synchronize();
    return error_.ok() ? status : error_;
  }
  absl::StatusOr<bool> Poll() override {
    TESSERA_RETURN_IF_ERROR(error_);
    return stream_->Query();
  }
  GpuStream& gpu() { return *stream_; }
  // Keeps the first error of a call for Synchronize and Poll.
  void Note(const absl::Status& status) { error_.Update(status); }
  // The first error so far, which is then forgotten.
  absl::Status TakeError() { return std::exchange(error_, absl::OkStatus()); }

 private:
  const std::unique_ptr<GpuStream> stream_;
  absl::Status error_;
};

// `stream` is one of a device's backend.
inline BackendStream& AsBackendStream(Stream& stream) {
  return static_cast<BackendStream&>(stream);
}
inline GpuStream& GpuStreamOf(Stream& stream) { return AsBackendStream(stream).gpu(); }

}  // namespace tessera::kernels::cuda

#endif  // TESSERA_KERNELS_CUDA_BACKEND_STREAM_H_
