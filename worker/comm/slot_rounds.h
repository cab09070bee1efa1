// SlotRounds: an exchange in slots whose rows go in rounds (exchange_rounds.h), at most
// two of them in flight, each in a SlotExchange of its own. All ops are on the caller's
// stream, the collectives on one of this class, where nothing else is:
//
//   ops    place 0, place 1, (caller) | list 0, experts 0, pack 0 | list 1, experts 1,
//   ... wire          gather 0, gather 1                  return 0                return
//   1
//
// so that the wire of a round is behind the experts of the other, and that of the first
// behind what the caller enqueues after Send. Round i + 2 takes the slots of round i,
// once that is packed. Each `gather` and `return` waits for the op before it, and what
// reads its rows waits for it, by events: a capture takes both streams, and the caller's
// is done only when the other is.
#ifndef TESSERA_WORKER_COMM_SLOT_ROUNDS_H_
#define TESSERA_WORKER_COMM_SLOT_ROUNDS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/kernel_backend.h"
#include "kernels/runtime/stream_event.h"
#include "worker/comm/exchange_rounds.h"
#include "worker/comm/expert_exchange.h"
#include "worker/comm/slot_exchange.h"
#include "worker/comm/stream_communicator.h"

namespace tessera::worker {

// Step thread only. After an error of a collective the group has ended, and has to be
// ended after any other, before this class goes: its stream may wait for other ranks.
class SlotRounds final : public ExpertExchange {
 public:
  // Of up to `max_rows` rows a rank, as SlotExchange::Create. Without a policy all rows
  // go in one round, and everything on the caller's stream.
  static absl::StatusOr<std::unique_ptr<SlotRounds>> Create(
      const ExpertExchangeOptions& options, int64_t max_rows,
      const std::optional<RoundPolicy>& policy, kernels::KernelBackend* backend,
      DeviceCommunicator* ep);

  // Rows of a rank in the exchanges from now on, the same on every rank.
  void SetRows(int64_t rows);

  // Of an exchange in one round.
  absl::StatusOr<ExpertBatch> Dispatch(kernels::Stream& stream, kernels::TensorView x,
                                       kernels::TensorView expert_ids,
                                       kernels::TensorView weights) override;
  absl::Status Combine(kernels::Stream& stream, kernels::TensorView out) override;

  int64_t num_rounds() const override { return rounds_.count; }
  absl::Status Send(kernels::Stream& stream, const ExchangeRows& rows) override;
  absl::StatusOr<ExpertBatch> Receive(kernels::Stream& stream) override;
  absl::Status Finish(kernels::Stream& stream) override;

  absl::Status Check() override;
  bool is_capturable() const override { return true; }
  int64_t row_bytes() const override { return slots_[0].exchange->row_bytes(); }
  std::span<const int> local_experts() const override {
    return slots_[0].exchange->local_experts();
  }

 private:
  // Of the rounds i with the same i % 2. Events are null without a policy.
  struct Slots {
    std::unique_ptr<SlotExchange> exchange;  // of the second null: rounds are single
    std::unique_ptr<kernels::StreamEvent> gathered;
    std::unique_ptr<kernels::StreamEvent> returned;
  };

  SlotRounds(const std::optional<RoundPolicy>& policy, int num_ranks)
      : policy_(policy), num_ranks_(num_ranks) {}
  ExchangeRounds Rounds(int64_t rows) const;
  Slots& SlotsOf(int64_t round) { return slots_[static_cast<size_t>(round % 2)]; }
  RoundPart PartOf(int64_t round) const;
  // A collective behind what is on `stream`, and `done` behind it.
  absl::Status OnWire(kernels::Stream& stream, kernels::StreamEvent* done,
                      absl::FunctionRef<absl::Status(kernels::Stream&)> collective);
  static absl::Status Await(kernels::StreamEvent* done, kernels::Stream& stream);

  absl::Status SendRound(kernels::Stream& stream, int64_t round);
  absl::Status ReturnRound(kernels::Stream& stream, int64_t round);
  absl::Status SumRound(kernels::Stream& stream, int64_t round);

  const std::optional<RoundPolicy> policy_;
  const int num_ranks_;
  ExchangeRounds rounds_;
  int64_t max_tokens_ = 0;  // of an exchange: the rows that were set
  std::array<Slots, 2> slots_;
  std::unique_ptr<kernels::StreamEvent> placed_;  // the op before a collective
  std::unique_ptr<kernels::Stream> wire_;         // null without a policy
  ExchangeRows rows_;                             // of the exchange in progress
  int64_t next_round_ = 0;                        // that Receive gives
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_SLOT_ROUNDS_H_
