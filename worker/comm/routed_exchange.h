// RoutedExchange: ExpertExchange of a group of several ranks, over any Communicator, on
// backends whose memory the host can address.
//
// Dispatch writes one DispatchMessage per other rank, exchanges them, and copies what
// came behind this rank's own rows in source order. Combine sends each source its items
// back, in the order in which it named them; what returns from the ranks lies in y in
// destination order, this rank's own items last, so that every router slot knows its row
// of y without being told.
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

namespace tessera::worker {

// Step thread only. Made by ExpertExchange::Create, which has checked the options. After
// an error the group is aborted, since the other ranks wait for this one.
class RoutedExchange final : public ExpertExchange {
 public:
  // kResourceExhausted if the backend has no memory for rows and outputs.
  static absl::StatusOr<std::unique_ptr<ExpertExchange>> Create(
      const ExpertExchangeOptions& options, kernels::KernelBackend* backend,
      Communicator* ep);

  // The Communicator's errors; kInternal for a bad argument, kDataLoss or
  // kFailedPrecondition for a bad message of a peer.
  absl::StatusOr<ExpertBatch> Dispatch(kernels::Stream& stream, kernels::TensorView x,
                                       kernels::TensorView expert_ids,
                                       kernels::TensorView weights) override;
  absl::Status Combine(kernels::Stream& stream, kernels::TensorView out) override;
  std::span<const int> local_experts() const override { return items_.local_experts(); }

 private:
  // Bounds of one exchange, from the options and the size of the group.
  struct Capacity {
    Capacity(const ExpertExchangeOptions& options, int num_ranks);
    int64_t own_items;  // items that one rank dispatches
    int64_t sent_rows;  // rows that one rank sends to others
    int64_t rows;       // rows that one rank can receive, its own included
    int64_t items;      // items that one rank can receive
  };
  struct Memory {
    kernels::DeviceBuffer rows;      // [rows, d]
    kernels::DeviceBuffer outputs;   // [items, d]
    kernels::DeviceBuffer returned;  // [own_items, d]
  };
  // What this rank sends to one rank (itself included) in this exchange.
  struct Destination {
    int64_t num_rows = 0;
    int64_t num_items = 0;
    int64_t last_token = -1;       // the last token that has a row here
    int64_t first_return_row = 0;  // row of y of its first item
    MessageDraft draft;
    int64_t next_row = 0;
    int64_t next_item = 0;
  };
  // What came from one rank in this exchange.
  struct Source {
    DispatchMessage message;
    int64_t first_item = 0;  // index into place_of_arrival_
  };

  RoutedExchange(const ExpertExchangeOptions& options, kernels::KernelBackend* backend,
                 Communicator* ep, ExchangeLists lists, Memory memory);

  absl::StatusOr<ExpertBatch> DispatchRows(kernels::TensorView x,
                                           kernels::TensorView expert_ids,
                                           kernels::TensorView weights);
  absl::Status ReturnOutputs();
  void CountDestinations(kernels::TensorView expert_ids);
  void LayOutMessages();
  void FillMessages(kernels::TensorView x, kernels::TensorView expert_ids,
                    kernels::TensorView weights);
  absl::Status ParseSources();
  ExpertBatch PlaceItems();
  absl::Status Fail(absl::Status status, std::string_view during);

  Destination& destination(int32_t expert) {
    return destinations_[static_cast<size_t>(
        options_.expert_owner[static_cast<size_t>(expert)])];
  }

  const ExpertExchangeOptions options_;
  kernels::KernelBackend* const backend_;
  Communicator* const ep_;
  const Capacity capacity_;
  const kernels::DType dtype_;
  const ExchangeShape shape_;

  ExchangeLists lists_;  // that of the items is theirs; slots name rows of returned
  ExpertItems items_;
  std::vector<Destination> destinations_;
  std::vector<Source> sources_;
  std::vector<int64_t> send_counts_;
  std::vector<int64_t> recv_counts_;
  std::vector<int32_t>
      place_of_arrival_;  // [items]: item list index of the i-th item that came
  // Dispatch sends and receives messages in these; Combine sends packed outputs from
  // sent_.
  std::unique_ptr<std::byte[]> own_message_;
  std::unique_ptr<std::byte[]> sent_;
  std::unique_ptr<std::byte[]> received_;
  int64_t sent_bytes_ = 0;
  int64_t received_bytes_ = 0;
  Memory memory_;
  int64_t num_tokens_ = 0;       // of the exchange in progress
  kernels::TensorView weights_;  // [T, k], likewise
  uint32_t exchange_number_ = 0;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_ROUTED_EXCHANGE_H_
