// RowExchange: one level of an ExpertExchange, over one Communicator. Rows, each with a
// list of experts, go to the ranks that lead to those experts: a row once per rank,
// whatever the number of its experts there. Later one output per listed expert comes
// back. Where every rank leads to its own experts, one level is the whole exchange; two
// levels, first to nodes and then inside them, send a row once to each node.
//
// What a rank has for itself goes through a message like the rest, but not over the wire.
// The layout of messages is in exchange_message.h, their volume in exchange_volume.h.
#ifndef TESSERA_WORKER_COMM_ROW_EXCHANGE_H_
#define TESSERA_WORKER_COMM_ROW_EXCHANGE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "worker/comm/communicator.h"
#include "worker/comm/exchange_message.h"

namespace tessera::worker {

// Step thread only. Memory is host memory. After an error the group's other ranks wait
// for this one: abort it.
class RowExchange {
 public:
  // shape.expert_owner[e]: the rank of `comm` that leads to expert e, or -1 where e must
  // not be named. shape.max_rows: of one rank's Dispatch. `comm` and the owners must
  // outlive it.
  RowExchange(const ExchangeShape& shape, Communicator* comm);

  // Of one rank's Dispatch, and of what it can receive, at most.
  int64_t max_items() const { return shape_.max_rows * shape_.experts_per_token; }
  int64_t max_received_rows() const { return shape_.max_rows * comm_->size(); }
  int64_t max_received_items() const { return max_items() * comm_->size(); }

  // Collective. The rows of all of `in`, in order, max_rows at most; their memory may go
  // afterwards. Returns what came from each rank, in rank order, valid until the next
  // Dispatch. return_rows (out) [items of `in`]: where Return will put each item's row.
  // num_rounds goes with every message. The Communicator's errors; kDataLoss or
  // kFailedPrecondition for a bad message.
  absl::StatusOr<std::span<const DispatchMessage>> Dispatch(
      std::span<const DispatchMessage> in, int64_t num_rounds,
      std::span<int32_t> return_rows);

  // Collective, after Dispatch. The i-th item that came, all messages one after the
  // other, has its row at outputs[row_of_item[i]]. returned (out): [items of `in`] rows.
  absl::Status Return(const std::byte* outputs, std::span<const int32_t> row_of_item,
                      std::byte* returned);

  Communicator* comm() const { return comm_; }

 private:
  // What this rank sends to one rank (itself included) in this exchange.
  struct Destination {
    int64_t num_rows = 0;
    int64_t num_items = 0;
    int64_t last_row = -1;         // the last row of `in` that goes here
    int64_t first_return_row = 0;  // row of `returned` of its first item
    MessageDraft draft;
    int64_t next_row = 0;
    int64_t next_item = 0;
  };

  void CountDestinations(std::span<const DispatchMessage> in);
  void LayOutMessages(int64_t num_rounds);
  void FillMessages(std::span<const DispatchMessage> in, std::span<int32_t> return_rows);
  absl::Status ParseSources();
  absl::Status CheckReturned() const;

  Destination& destination(int32_t expert) {
    return destinations_[static_cast<size_t>(
        shape_.expert_owner[static_cast<size_t>(expert)])];
  }
  size_t own() const { return static_cast<size_t>(comm_->rank()); }

  const ExchangeShape shape_;
  Communicator* const comm_;
  std::vector<Destination> destinations_;
  std::vector<DispatchMessage> sources_;  // what came from each rank
  std::vector<int64_t> send_counts_;
  std::vector<int64_t> recv_counts_;
  // Dispatch sends and receives messages in these; Return sends packed rows from sent_.
  std::unique_ptr<std::byte[]> own_message_;
  std::unique_ptr<std::byte[]> sent_;
  std::unique_ptr<std::byte[]> received_;
  int64_t sent_bytes_ = 0;
  int64_t received_bytes_ = 0;
  uint32_t exchange_number_ = 0;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_ROW_EXCHANGE_H_
