// RoutedExchange: ExpertExchange of a group of several ranks, on backends whose memory
// the host can address. It has one level (RowExchange), to the ranks, or two: first to
// the rank of the same place in each node that has an expert of the token, then from
// there to the ranks of that node. With two levels a row crosses once to each node, and
// the outputs come back the same way, one per router slot: nothing is added on the way,
// so that Combine's order, and every bit, is that of one level.
#ifndef TESSERA_WORKER_COMM_ROUTED_EXCHANGE_H_
#define TESSERA_WORKER_COMM_ROUTED_EXCHANGE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "worker/comm/exchange_message.h"
#include "worker/comm/exchange_routing.h"
#include "worker/comm/expert_exchange.h"
#include "worker/comm/expert_items.h"
#include "worker/comm/row_exchange.h"
#include "worker/comm/row_packer.h"

namespace tessera::worker {

// Step thread only. Made by ExpertExchange::Create, which has checked options and groups.
// After an error all groups are aborted, since the other ranks wait for this one.
class RoutedExchange final : public ExpertExchange {
 public:
  // kResourceExhausted if the backend has no memory for rows and outputs.
  static absl::StatusOr<std::unique_ptr<ExpertExchange>> Create(
      const ExpertExchangeOptions& options, kernels::KernelBackend* backend,
      const ExchangeGroups& groups);

  // The Communicator's errors; kInternal for a bad argument, kDataLoss or
  // kFailedPrecondition for a bad message of a peer.
  absl::StatusOr<ExpertBatch> Dispatch(kernels::Stream& stream, kernels::TensorView x,
                                       kernels::TensorView expert_ids,
                                       kernels::TensorView weights) override;
  absl::Status Combine(kernels::Stream& stream, kernels::TensorView out) override;
  absl::Status Check() override { return absl::OkStatus(); }  // Dispatch has
  bool is_capturable() const override { return false; }
  int64_t row_bytes() const override { return row_bytes_; }
  std::span<const int> local_experts() const override { return items_.local_experts(); }

 private:
  struct Memory {
    kernels::DeviceBuffer rows;      // [rows that can come] of row_bytes
    kernels::DeviceBuffer outputs;   // [items that can come, d]
    kernels::DeviceBuffer returned;  // [max_tokens k, d]
    kernels::DeviceBuffer packed;    // kFp8: [max_tokens] of row_bytes
    RowPacker packer;                // kFp8
  };
  struct Level {
    std::vector<int> expert_owner;  // of RowExchange
    std::unique_ptr<RowExchange> rows;
    // The first level's lie in the backend's memory, for CombineExperts.
    std::span<int32_t> return_rows;  // [items of this level]
    std::byte* returned = nullptr;   // [items of this level] rows
    std::vector<int32_t> own_return_rows;
    std::unique_ptr<std::byte[]> own_returned;
  };

  RoutedExchange(const ExpertExchangeOptions& options, kernels::KernelBackend* backend,
                 const ExchangeGroups& groups, ExchangeLists lists, Memory memory);
  void AddLevel(const ExchangeShape& shape, std::vector<int> expert_owner,
                Communicator* comm);
  // `rows` in memory of row_bytes each.
  kernels::TensorView RowsIn(kernels::DeviceBuffer& memory, int64_t rows) const;
  // x, or where its codes and scales will lie.
  kernels::TensorView OnWire(kernels::Stream& stream, kernels::TensorView x);
  absl::StatusOr<ExpertBatch> SendRows(kernels::TensorView rows,
                                       kernels::TensorView expert_ids,
                                       kernels::TensorView weights);
  ExpertBatch PlaceItems(std::span<const DispatchMessage> messages);
  absl::Status ReturnOutputs();
  absl::Status Fail(absl::Status status, std::string_view during);

  const ExpertExchangeOptions options_;
  kernels::KernelBackend* const backend_;
  const ExchangeGroups groups_;
  const kernels::DType dtype_;
  const int64_t row_bytes_;     // at Dispatch
  const int64_t output_bytes_;  // of an output
  const int64_t weight_bytes_;
  ExchangeLists lists_;  // that of the items is theirs; slots name rows of returned
  ExpertItems items_;
  std::vector<int32_t> items_of_token_;    // [max_tokens] of k
  std::vector<int32_t> place_of_arrival_;  // item list index of the i-th item that came
  Memory memory_;
  std::vector<Level> levels_;
  int64_t num_tokens_ = 0;       // of the exchange in progress
  kernels::TensorView weights_;  // [T, k], likewise
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_ROUTED_EXCHANGE_H_
