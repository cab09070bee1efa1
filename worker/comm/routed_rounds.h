// RoutedRounds: ExpertExchange of a group of several ranks, of as many rows as each has.
// They go in rounds (exchange_rounds.h), at most two of them in flight, each in a
// RoutedExchange of its own: memory is bounded by the rows of a round, and where ops are
// asynchronous, the host sends the rows of one round while the device has the experts of
// another, and before the first the caller's:
//
//   device   (caller) | experts 0 | experts 1 | experts 2 | sums
//   host     send 0   | send 1    | return 0, send 2 | return 1 | return 2
//
// How many rounds there are, a rank learns in the first: every message says how many its
// sender needs, and the most of all ranks is the number. A rank splits what its first
// round has left; with few rows its later rounds are empty.
#ifndef TESSERA_WORKER_COMM_ROUTED_ROUNDS_H_
#define TESSERA_WORKER_COMM_ROUTED_ROUNDS_H_

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/kernel_backend.h"
#include "kernels/runtime/stream_event.h"
#include "worker/comm/exchange_rounds.h"
#include "worker/comm/expert_exchange.h"
#include "worker/comm/routed_exchange.h"

namespace tessera::worker {

// Step thread only. Made by ExpertExchange::Create, which has checked options and groups.
// After an error all groups are aborted, since the other ranks wait for this one.
class RoutedRounds final : public ExpertExchange {
 public:
  // kResourceExhausted if the backend has no memory for rows and outputs, or no stream.
  static absl::StatusOr<std::unique_ptr<ExpertExchange>> Create(
      const ExpertExchangeOptions& options, kernels::KernelBackend* backend,
      const ExchangeGroups& groups);

  // Of an exchange in one round. Errors of these and the next three: the Communicator's;
  // kInternal for a bad argument, kDataLoss or kFailedPrecondition for a bad message of a
  // peer.
  absl::StatusOr<ExpertBatch> Dispatch(kernels::Stream& stream, kernels::TensorView x,
                                       kernels::TensorView expert_ids,
                                       kernels::TensorView weights) override;
  absl::Status Combine(kernels::Stream& stream, kernels::TensorView out) override;

  int64_t num_rounds() const override { return num_rounds_; }
  // Waits for the rows, and for nobody.
  absl::Status Send(kernels::Stream& stream, const ExchangeRows& rows) override;
  absl::StatusOr<ExpertBatch> Receive(kernels::Stream& stream) override;
  absl::Status Finish(kernels::Stream& stream) override;

  absl::Status Check() override { return absl::OkStatus(); }  // Send has
  bool is_capturable() const override { return false; }
  int64_t row_bytes() const override { return slots_[0].exchange->row_bytes(); }
  absl::Duration host_time() const override;
  std::span<const int> local_experts() const override {
    return slots_[0].exchange->local_experts();
  }

 private:
  // Of the rounds i with the same i % 2.
  struct Slots {
    std::unique_ptr<RoutedExchange> exchange;  // of the second null: rounds are single
    std::unique_ptr<kernels::StreamEvent> computed;  // null where ops run at once
  };

  RoutedRounds(const ExpertExchangeOptions& options, const ExchangeGroups& groups)
      : options_(options), groups_(groups) {}
  ExchangeRounds Rounds(int64_t rows) const {
    return RoundsOf(rows, groups_.ep->size(), options_.rounds);
  }
  Slots& SlotsOf(int64_t round) { return slots_[static_cast<size_t>(round % 2)]; }
  // Those of this rank's tokens.
  RoundPart PartOf(int64_t round) const {
    return PartOfRounds(rows_.x.dim(0), own_rounds_, num_rounds_, round);
  }
  // Of ops beside those of `stream`.
  kernels::Stream& Side(kernels::Stream& stream) {
    return side_ != nullptr ? *side_ : stream;
  }
  void PackRound(kernels::Stream& stream, int64_t round);
  absl::StatusOr<ExpertBatch> ReceiveRound(kernels::Stream& stream, int64_t round);
  // The experts of `round` are enqueued on `stream`: remembers where.
  absl::Status MarkComputed(kernels::Stream& stream, int64_t round);
  // Waits for the experts of `round`, returns their outputs, and enqueues the sums.
  absl::Status ReturnRound(kernels::Stream& stream, int64_t round, kernels::Stream& sums);
  absl::Status Fail(const absl::Status& status, std::string_view during);

  const ExpertExchangeOptions options_;
  const ExchangeGroups groups_;
  std::array<Slots, 2> slots_;
  // Where the host waits for one event alone, and for short ops beside the experts; null
  // where ops run at once or all rows go in one round.
  std::unique_ptr<kernels::Stream> side_;
  ExchangeRows rows_;       // of the exchange in progress, as what follows
  int64_t own_rounds_ = 1;  // that this rank needs
  int64_t num_rounds_ = 1;  // that all have: its own until the first is received
  int64_t next_round_ = 0;  // that Receive gives
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_ROUTED_ROUNDS_H_
