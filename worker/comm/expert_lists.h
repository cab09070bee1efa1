// ExpertLists: the items of one rank's experts, listed by the backend itself
// (ListExpertItems), for exchanges that only enqueue. What the host sorts: ExpertItems.
#ifndef TESSERA_WORKER_COMM_EXPERT_LISTS_H_
#define TESSERA_WORKER_COMM_EXPERT_LISTS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/kernel_backend.h"
#include "kernels/runtime/device_buffer.h"
#include "kernels/tensor_view.h"
#include "worker/comm/expert_exchange.h"

namespace tessera::worker {

// Memory of the backend that holds `values`. Start-up only: waits for the upload.
// kResourceExhausted.
absl::StatusOr<kernels::DeviceBuffer> MakeDeviceInts(kernels::KernelBackend* backend,
                                                     std::span<const int32_t> values);

// Step thread only. Its memory, made at Create, stays where it is: a captured List is one
// of whatever ids lie where its ids lay.
class ExpertLists {
 public:
  ExpertLists() = default;

  // Of the experts that `options` give to `rank`, for up to `max_rows` rows. Items have
  // weights where those travel. `backend` must outlive it. kResourceExhausted.
  static absl::StatusOr<ExpertLists> Create(const ExpertExchangeOptions& options,
                                            int rank, int64_t max_rows,
                                            kernels::KernelBackend* backend);

  // Enqueues. expert_ids [T, k] i32, -1 for no expert; weights [T, k], not read where
  // they stay at home. T <= max_rows.
  void List(kernels::Stream& stream, kernels::TensorView expert_ids,
            kernels::TensorView weights);

  // Of the last List. Items are as many as the last offset says, T k at most.
  kernels::TensorView item_offsets() const;  // [experts of the rank + 1] i32
  kernels::TensorView row_of_item() const;   // [T k] i32
  kernels::TensorView item_weights() const;  // [T k], or rank 0
  kernels::TensorView row_of_slot() const;   // [T, k] i32: item or -1

  // [1] i32: where ops that read the same ids note a fault, too.
  kernels::TensorView fault() const;
  // kInternal if an op has noted one since the last call. The stream is synchronised.
  absl::Status Check();

  // Experts of the rank, rising.
  std::span<const int> local_experts() const { return local_experts_; }

 private:
  kernels::KernelBackend* backend_ = nullptr;
  int64_t max_rows_ = 0;
  int64_t experts_per_token_ = 0;
  kernels::DType dtype_ = kernels::DType::kF32;
  bool has_weights_ = false;
  int64_t num_rows_ = 0;  // of the last List
  std::vector<int> local_experts_;
  kernels::DeviceBuffer local_of_expert_;
  kernels::DeviceBuffer item_offsets_;
  kernels::DeviceBuffer row_of_item_;
  kernels::DeviceBuffer item_weights_;
  kernels::DeviceBuffer row_of_slot_;
  kernels::DeviceBuffer fault_;
  int64_t num_experts_ = 0;  // of all ranks
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_EXPERT_LISTS_H_
