#include "worker/comm/switched_exchange.h"

#include <utility>

#include "common/check.h"
#include "common/status_macros.h"

namespace tessera::worker {

SwitchedExchange::SwitchedExchange(std::unique_ptr<ExpertExchange> routed,
                                   std::unique_ptr<SlotRounds> slots)
    : routed_(std::move(routed)), slots_(std::move(slots)), used_(routed_.get()) {}

absl::StatusOr<std::unique_ptr<SwitchedExchange>> SwitchedExchange::Create(
    const ExpertExchangeOptions& options, int64_t max_rows,
    const std::optional<RoundPolicy>& policy, kernels::KernelBackend* backend,
    const ExchangeGroups& groups) {
  TESSERA_CHECK(groups.ep->size() > 1 && groups.ep->on_stream() != nullptr);
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<ExpertExchange> routed,
                           ExpertExchange::Create(options, backend, groups));
  TESSERA_ASSIGN_OR_RETURN(
      std::unique_ptr<SlotRounds> slots,
      SlotRounds::Create(options, max_rows, policy, backend, groups.ep->on_stream()));
  return std::unique_ptr<SwitchedExchange>(
      new SwitchedExchange(std::move(routed), std::move(slots)));
}

void SwitchedExchange::UseSlots(int64_t rows) {
  used_ = routed_.get();
  if (rows > 0) {
    slots_->SetRows(rows);
    used_ = slots_.get();
  }
}

absl::StatusOr<ExpertBatch> SwitchedExchange::Dispatch(kernels::Stream& stream,
                                                       kernels::TensorView x,
                                                       kernels::TensorView expert_ids,
                                                       kernels::TensorView weights) {
  return used_->Dispatch(stream, x, expert_ids, weights);
}

absl::Status SwitchedExchange::Combine(kernels::Stream& stream, kernels::TensorView out) {
  return used_->Combine(stream, out);
}

absl::Status SwitchedExchange::Send(kernels::Stream& stream, const ExchangeRows& rows) {
  return used_->Send(stream, rows);
}

absl::StatusOr<ExpertBatch> SwitchedExchange::Receive(kernels::Stream& stream) {
  return used_->Receive(stream);
}

absl::Status SwitchedExchange::Finish(kernels::Stream& stream) {
  return used_->Finish(stream);
}

absl::Status SwitchedExchange::Check() {
  absl::Status status = routed_->Check();
  status.Update(slots_->Check());
  return status;
}

}  // namespace tessera::worker
