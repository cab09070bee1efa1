// SlotExchange: ExpertExchange of a group whose collectives go on its devices' streams,
// in slots of a fixed size: nothing of it depends on where tokens go, so that a step with
// it can be captured. Each rank sends n rows to every rank, and each rank returns m rows
// for each of them, m = min(k, most experts of a rank):
//
//   dispatch  all ranks gather all rows, [R n] of DispatchRowBytes, with their ids (-1:
//   no expert) and,
//             where they travel, weights; the device lists the items of its own experts
//   combine   place i of a row's m holds its i-th item here (zeros: none); one exchange
//             of [n m, d] with each rank; at home, slot order as everywhere
//
// So the bits are those of RoutedRounds; the bytes are those of the worst case. For
// decode steps: exchange_volume.h has the formula of either.
#ifndef TESSERA_WORKER_COMM_SLOT_EXCHANGE_H_
#define TESSERA_WORKER_COMM_SLOT_EXCHANGE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/kernel_backend.h"
#include "kernels/runtime/device_buffer.h"
#include "kernels/tensor_view.h"
#include "worker/comm/expert_exchange.h"
#include "worker/comm/expert_lists.h"
#include "worker/comm/row_packer.h"
#include "worker/comm/stream_communicator.h"

namespace tessera::worker {

// Step thread only. After an error of a collective the group has ended.
class SlotExchange final : public ExpertExchange {
 public:
  // Of up to `max_rows` rows a rank, at most options.max_tokens. `ep` and `backend`, of
  // float32 activations, must outlive it. ExpertExchange has checked the options.
  // kResourceExhausted.
  static absl::StatusOr<std::unique_ptr<SlotExchange>> Create(
      const ExpertExchangeOptions& options, int64_t max_rows,
      kernels::KernelBackend* backend, DeviceCommunicator* ep);

  // n of the exchanges from now on, the same on every rank.
  void SetRows(int64_t rows);

  // T <= n. Errors as ExpertExchange's, and the collectives'.
  absl::StatusOr<ExpertBatch> Dispatch(kernels::Stream& stream, kernels::TensorView x,
                                       kernels::TensorView expert_ids,
                                       kernels::TensorView weights) override;
  absl::Status Combine(kernels::Stream& stream, kernels::TensorView out) override;

  // What these two are made of, for who puts the wire on a stream of its own: Dispatch is
  // Place, Gather and List, Combine is Pack, Return and Sum. Gather and Return are the
  // collectives, the others ops; each reads what the one before it has written.
  absl::Status Place(kernels::Stream& stream, kernels::TensorView x,
                     kernels::TensorView expert_ids, kernels::TensorView weights);
  absl::Status Gather(kernels::Stream& wire);
  ExpertBatch List(kernels::Stream& stream);
  void Pack(kernels::Stream& stream);
  absl::Status Return(kernels::Stream& wire);
  // `weights`: those of Place, as Dispatch has them.
  void Sum(kernels::Stream& stream, kernels::TensorView weights, kernels::TensorView out);

  absl::Status Check() override { return lists_.Check(); }
  bool is_capturable() const override { return true; }
  int64_t row_bytes() const override { return row_bytes_; }
  std::span<const int> local_experts() const override { return lists_.local_experts(); }

 private:
  SlotExchange(const ExpertExchangeOptions& options, int64_t max_rows,
               kernels::KernelBackend* backend, DeviceCommunicator* ep);
  absl::Status Allocate();
  // Rows of all ranks, and their parts, in words.
  kernels::TensorView Gathered(kernels::DType dtype, int64_t begin, int64_t cols) const;
  kernels::TensorView GatheredRows() const;  // as ExpertBatch::rows
  // [R n m, d] rows of sent_ or returned_, and those of one rank.
  kernels::TensorView Places(const kernels::DeviceBuffer& buffer) const;
  kernels::TensorView PlacesOfRank(const kernels::DeviceBuffer& buffer, int rank) const;
  void PlaceOwnRows(kernels::Stream& stream, kernels::TensorView x,
                    kernels::TensorView expert_ids, kernels::TensorView weights);

  const ExpertExchangeOptions options_;
  const int64_t max_rows_;
  kernels::KernelBackend* const backend_;
  DeviceCommunicator* const ep_;
  const int64_t num_ranks_;
  const int64_t places_;              // m
  const int64_t row_bytes_;           // of a row itself
  const int64_t value_words_;         // of it, in whole words
  const int64_t row_words_;           // gathered: [row | k ids | k weights | padding]
  int64_t rows_;                      // n
  ExpertLists lists_;                 // of R max_rows rows
  kernels::DeviceBuffer gathered_;    // [R n, row_words]
  RowPacker packer_;                  // kFp8
  kernels::DeviceBuffer no_experts_;  // [max_rows, k] of -1
  kernels::DeviceBuffer ones_;        // [max_tokens, k] where weights travel
  kernels::DeviceBuffer outputs_;     // [R max_rows k, d]
  kernels::DeviceBuffer packed_;      // [R n, m] i32: items, or -1
  kernels::DeviceBuffer sent_;        // [R n m, d]
  kernels::DeviceBuffer returned_;    // [R n m, d]
  kernels::DeviceBuffer owner_of_expert_;           // [E] i32
  kernels::DeviceBuffer return_of_slot_;            // [n, k] i32: row of returned_, or -1
  std::vector<int64_t> gather_bytes_;               // [R]
  std::vector<kernels::DeviceTransfer> transfers_;  // of Combine
  kernels::TensorView weights_;                     // [T, k] of the exchange in progress
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_SLOT_EXCHANGE_H_
