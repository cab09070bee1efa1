// RowPacker: makes of a rank's rows what DispatchRows::kFp8 sends, by an op of its
// backend.
#ifndef TESSERA_WORKER_COMM_ROW_PACKER_H_
#define TESSERA_WORKER_COMM_ROW_PACKER_H_

#include <cstdint>

#include "absl/status/statusor.h"

#include "kernels/kernel_backend.h"
#include "kernels/row_format.h"
#include "kernels/runtime/device_buffer.h"
#include "kernels/tensor_view.h"

namespace tessera::worker {

// Step thread only. Its memory, made at Create, stays where it is: a captured Pack is one
// of whatever rows lie where its rows lay.
class RowPacker {
 public:
  RowPacker() = default;

  // Of rows of `hidden_size` values, up to `max_rows` a call. `backend` must outlive it.
  // kResourceExhausted.
  static absl::StatusOr<RowPacker> Create(int64_t hidden_size, int64_t max_rows,
                                          kernels::KernelBackend* backend);

  // Enqueues. x [T, d] f32, T <= max_rows; packed (out) u8 [T, bytes of Fp8RowFormat],
  // whose rows may lie apart.
  void Pack(kernels::Stream& stream, kernels::TensorView x,
            kernels::TensorView packed) const;

 private:
  kernels::KernelBackend* backend_ = nullptr;
  kernels::RowFormat format_;
  int64_t max_rows_ = 0;
  kernels::DeviceBuffer places_;  // [max_rows] i32: a row's is its own
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_ROW_PACKER_H_
