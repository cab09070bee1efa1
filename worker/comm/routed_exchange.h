// RoutedExchange: a round of an exchange of as many rows as there are (RoutedRounds), on
// backends whose memory the host can address. It has one level (RowExchange), to the
// ranks, or two: first to the rank of the same place in each node that has an expert of
// the token, then from there to the ranks of that node. With two levels a row crosses
// once to each node, and the outputs come back the same way, one per router slot: nothing
// is added on the way, so that the sum's order, and every bit, is that of one level.
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

// Step thread only. After an error the other ranks wait for this one: abort the groups.
class RoutedExchange {
 public:
  // Of up to options.max_tokens rows a rank and round; options and groups are checked.
  // kResourceExhausted if the backend has no memory for rows and outputs.
  static absl::StatusOr<std::unique_ptr<RoutedExchange>> Create(
      const ExpertExchangeOptions& options, int64_t max_rounds,
      kernels::KernelBackend* backend, const ExchangeGroups& groups);

  // x [T, d], T at most max_tokens, becomes what goes over the wire: enqueues that, or
  // nothing where it is x.
  void Pack(kernels::Stream& stream, kernels::TensorView x);
  // Collective, of what was packed. Rows, ids and weights are written, and the ids
  // checked; `weights` stays until Sum. num_rounds (in, out): rounds of the exchange as
  // far as this rank knows, afterwards the most that any rank said. The Communicator's
  // errors; kDataLoss or kFailedPrecondition for a bad message of a peer.
  absl::StatusOr<ExpertBatch> Dispatch(kernels::TensorView expert_ids,
                                       kernels::TensorView weights, int64_t* num_rounds);
  // Collective: sends the batch's outputs, which are written, back to where their rows
  // came from. Likewise.
  absl::Status Return();
  // Enqueues out [T, d]: each token's sum. Until that is done, no other Dispatch.
  void Sum(kernels::Stream& stream, kernels::TensorView out);

  int64_t row_bytes() const { return row_bytes_; }
  std::span<const int> local_experts() const { return items_.local_experts(); }

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

  RoutedExchange(const ExpertExchangeOptions& options, int64_t max_rounds,
                 kernels::KernelBackend* backend, const ExchangeGroups& groups,
                 ExchangeLists lists, Memory memory);
  void AddLevel(const ExchangeShape& shape, std::vector<int> expert_owner,
                Communicator* comm);
  // `rows` in memory of row_bytes each.
  kernels::TensorView RowsIn(kernels::DeviceBuffer& memory, int64_t rows) const;
  ExpertBatch PlaceItems(std::span<const DispatchMessage> messages);

  const ExpertExchangeOptions options_;
  kernels::KernelBackend* const backend_;
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
  kernels::TensorView packed_;   // of the exchange in progress: [T, row]
  kernels::TensorView weights_;  // [T, k], likewise
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_ROUTED_EXCHANGE_H_
