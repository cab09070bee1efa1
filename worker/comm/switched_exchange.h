// SwitchedExchange: the ExpertExchange of a group whose decode steps are captured: rows
// go as many as there are, by RoutedRounds, or in slots of a fixed size, by
// SlotRounds. Either gives the same bits.
#ifndef TESSERA_WORKER_COMM_SWITCHED_EXCHANGE_H_
#define TESSERA_WORKER_COMM_SWITCHED_EXCHANGE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/kernel_backend.h"
#include "kernels/tensor_view.h"
#include "worker/comm/exchange_rounds.h"
#include "worker/comm/expert_exchange.h"
#include "worker/comm/slot_rounds.h"

namespace tessera::worker {

// Step thread only.
class SwitchedExchange final : public ExpertExchange {
 public:
  // Slots hold up to `max_rows` rows a rank, at most options.max_tokens, which go in
  // rounds as `policy` says (SlotRounds::Create). groups.ep has several ranks and is
  // on_stream. Errors as ExpertExchange::Create.
  static absl::StatusOr<std::unique_ptr<SwitchedExchange>> Create(
      const ExpertExchangeOptions& options, int64_t max_rows,
      const std::optional<RoundPolicy>& policy, kernels::KernelBackend* backend,
      const ExchangeGroups& groups);

  // From the next Dispatch on, `rows` to each rank, padded; 0: as many as there are, as
  // at first. The same on every rank.
  void UseSlots(int64_t rows);

  absl::StatusOr<ExpertBatch> Dispatch(kernels::Stream& stream, kernels::TensorView x,
                                       kernels::TensorView expert_ids,
                                       kernels::TensorView weights) override;
  absl::Status Combine(kernels::Stream& stream, kernels::TensorView out) override;
  int64_t num_rounds() const override { return used_->num_rounds(); }
  absl::Status Send(kernels::Stream& stream, const ExchangeRows& rows) override;
  absl::StatusOr<ExpertBatch> Receive(kernels::Stream& stream) override;
  absl::Status Finish(kernels::Stream& stream) override;
  // Of both: a step may be a graph that was captured in slots.
  absl::Status Check() override;
  bool is_capturable() const override { return used_->is_capturable(); }
  int64_t row_bytes() const override { return used_->row_bytes(); }
  absl::Duration host_time() const override { return used_->host_time(); }
  std::span<const int> local_experts() const override { return slots_->local_experts(); }

 private:
  SwitchedExchange(std::unique_ptr<ExpertExchange> routed,
                   std::unique_ptr<SlotRounds> slots);

  const std::unique_ptr<ExpertExchange> routed_;
  const std::unique_ptr<SlotRounds> slots_;
  ExpertExchange* used_;
};

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_SWITCHED_EXCHANGE_H_
