#include "worker/comm/routed_rounds.h"

#include <algorithm>
#include <string>
#include <utility>

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "worker/comm/exchange_routing.h"

namespace tessera::worker {

using kernels::TensorView;

absl::StatusOr<std::unique_ptr<ExpertExchange>> RoutedRounds::Create(
    const ExpertExchangeOptions& options, kernels::KernelBackend* backend,
    const ExchangeGroups& groups) {
  std::unique_ptr<RoutedRounds> rounds(new RoutedRounds(options, groups));
  const int64_t max_rounds = rounds->Rounds(options.max_tokens).count;
  ExpertExchangeOptions one = options;
  one.max_tokens = 0;
  for (int64_t rows = 1; rows <= options.max_tokens; ++rows) {
    one.max_tokens = std::max(one.max_tokens, rounds->Rounds(rows).rows);
  }
  for (int64_t i = 0; i < std::min<int64_t>(max_rounds, 2); ++i) {
    TESSERA_ASSIGN_OR_RETURN(rounds->SlotsOf(i).exchange,
                             RoutedExchange::Create(one, max_rounds, backend, groups));
  }
  kernels::StreamEventFactory* const events = kernels::StreamEventsOf(backend);
  if (max_rounds > 1 && events != nullptr) {
    for (Slots& slots : rounds->slots_) {
      slots.computed = events->CreateEvent();
    }
    TESSERA_ASSIGN_OR_RETURN(rounds->side_, backend->CreateStream());
  }
  return rounds;
}

absl::Duration RoutedRounds::host_time() const {
  if (groups_.node == nullptr) {
    return groups_.ep->stats().time;
  }
  return groups_.rail->stats().time + groups_.node->stats().time;
}

absl::Status RoutedRounds::Fail(const absl::Status& status, std::string_view during) {
  const std::string text(status.message());
  for (Communicator* const group : {groups_.ep, groups_.rail, groups_.node}) {
    if (group != nullptr) {
      group->Abort(text);
    }
  }
  return WithContext(status, during);
}

absl::Status RoutedRounds::Send(kernels::Stream& stream, const ExchangeRows& rows) {
  absl::Status status = CheckShapes(options_, rows.x, rows.expert_ids, rows.weights);
  if (status.ok()) {
    rows_ = rows;
    own_rounds_ = Rounds(std::max<int64_t>(rows.x.dim(0), 1)).count;
    num_rounds_ = own_rounds_;
    next_round_ = 0;
    PackRound(stream, 0);
    status = stream.Synchronize();
  }
  if (status.ok()) {
    status = CheckRouting(options_, rows.x, rows.expert_ids, rows.weights);
  }
  return status.ok() ? status : Fail(status, "expert dispatch");
}

void RoutedRounds::PackRound(kernels::Stream& stream, int64_t round) {
  const auto [begin, count] = PartOf(round);
  SlotsOf(round).exchange->Pack(stream, rows_.x.Rows(begin, count));
}

absl::Status RoutedRounds::MarkComputed(kernels::Stream& stream, int64_t round) {
  kernels::StreamEvent* const computed = SlotsOf(round).computed.get();
  return computed == nullptr ? absl::OkStatus() : computed->Record(stream);
}

absl::Status RoutedRounds::ReturnRound(kernels::Stream& stream, int64_t round,
                                       kernels::Stream& sums) {
  Slots& slots = SlotsOf(round);
  if (slots.computed != nullptr) {
    TESSERA_RETURN_IF_ERROR(slots.computed->Wait(*side_));
  }
  TESSERA_RETURN_IF_ERROR(Side(stream).Synchronize());
  TESSERA_RETURN_IF_ERROR(slots.exchange->Return());
  const auto [begin, count] = PartOf(round);
  slots.exchange->Sum(sums, rows_.out.Rows(begin, count));
  return absl::OkStatus();
}

absl::StatusOr<ExpertBatch> RoutedRounds::ReceiveRound(kernels::Stream& stream,
                                                       int64_t round) {
  if (round > 0) {
    TESSERA_RETURN_IF_ERROR(MarkComputed(stream, round - 1));
    kernels::Stream& side = Side(stream);
    if (round > 1) {
      TESSERA_RETURN_IF_ERROR(ReturnRound(stream, round - 2, side));
    }
    PackRound(side, round);
    TESSERA_RETURN_IF_ERROR(side.Synchronize());  // the sums before that, too
  }
  const auto [begin, count] = PartOf(round);
  int64_t num_rounds = num_rounds_;
  TESSERA_ASSIGN_OR_RETURN(
      const ExpertBatch batch,
      SlotsOf(round).exchange->Dispatch(rows_.expert_ids.Rows(begin, count),
                                        rows_.weights.Rows(begin, count), &num_rounds));
  if (round > 0 && num_rounds != num_rounds_) {
    return StatusF(absl::StatusCode::kFailedPrecondition,
                   "a rank is in an exchange of {} rounds, this one in one of {}",
                   num_rounds, num_rounds_);
  }
  num_rounds_ = num_rounds;
  return batch;
}

absl::StatusOr<ExpertBatch> RoutedRounds::Receive(kernels::Stream& stream) {
  TESSERA_CHECK(next_round_ == 0 || next_round_ < num_rounds_);
  absl::StatusOr<ExpertBatch> batch = ReceiveRound(stream, next_round_++);
  if (!batch.ok()) {
    return Fail(batch.status(), "expert dispatch");
  }
  return batch;
}

absl::Status RoutedRounds::Finish(kernels::Stream& stream) {
  TESSERA_CHECK(next_round_ == num_rounds_);
  absl::Status status = MarkComputed(stream, num_rounds_ - 1);
  for (int64_t round = std::max<int64_t>(num_rounds_ - 2, 0);
       status.ok() && round < num_rounds_; ++round) {
    status = ReturnRound(stream, round, stream);
  }
  return status.ok() ? status : Fail(status, "expert combine");
}

absl::StatusOr<ExpertBatch> RoutedRounds::Dispatch(kernels::Stream& stream, TensorView x,
                                                   TensorView expert_ids,
                                                   TensorView weights) {
  TESSERA_RETURN_IF_ERROR(
      Send(stream, {.x = x, .expert_ids = expert_ids, .weights = weights, .out = {}}));
  absl::StatusOr<ExpertBatch> batch = Receive(stream);
  if (batch.ok() && num_rounds_ > 1) {
    return Fail(InternalF("dispatch at once of an exchange in {} rounds", num_rounds_),
                "expert dispatch");
  }
  return batch;
}

absl::Status RoutedRounds::Combine(kernels::Stream& stream, TensorView out) {
  rows_.out = out;
  return Finish(stream);
}

}  // namespace tessera::worker
