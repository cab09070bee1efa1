#include "worker/comm/slot_rounds.h"

#include <algorithm>

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::worker {

using kernels::StreamEvent;
using kernels::TensorView;

absl::StatusOr<std::unique_ptr<SlotRounds>> SlotRounds::Create(
    const ExpertExchangeOptions& options, int64_t max_rows,
    const std::optional<RoundPolicy>& policy, kernels::KernelBackend* backend,
    DeviceCommunicator* ep) {
  std::unique_ptr<SlotRounds> rounds(new SlotRounds(policy, ep->size()));
  // The largest round of each of the two, over all that may be asked for: more rows may
  // have more and smaller rounds.
  std::array<int64_t, 2> places = {};
  for (int64_t rows = 1; rows <= max_rows; ++rows) {
    const ExchangeRounds one = rounds->Rounds(rows);
    places[0] = std::max(places[0], one.rows);
    places[1] = std::max(places[1], one.count > 1 ? one.rows : 0);
  }
  for (size_t i = 0; i < places.size(); ++i) {
    if (places[i] > 0) {
      TESSERA_ASSIGN_OR_RETURN(rounds->slots_[i].exchange,
                               SlotExchange::Create(options, places[i], backend, ep));
    }
  }
  if (policy.has_value()) {
    kernels::StreamEventFactory* const events = kernels::StreamEventsOf(backend);
    TESSERA_CHECK(events != nullptr);  // collectives are on streams of a device
    for (Slots& slots : rounds->slots_) {
      slots.gathered = events->CreateEvent();
      slots.returned = events->CreateEvent();
    }
    rounds->placed_ = events->CreateEvent();
    TESSERA_ASSIGN_OR_RETURN(rounds->wire_, backend->CreateStream());
  }
  rounds->SetRows(max_rows);
  return rounds;
}

ExchangeRounds SlotRounds::Rounds(int64_t rows) const {
  return policy_.has_value() ? RoundsOf(rows, num_ranks_, *policy_)
                             : ExchangeRounds{.count = 1, .rows = rows};
}

void SlotRounds::SetRows(int64_t rows) {
  rounds_ = Rounds(rows);
  max_tokens_ = rows;
  for (int64_t round = 0; round < std::min<int64_t>(rounds_.count, 2); ++round) {
    SlotsOf(round).exchange->SetRows(rounds_.rows);
  }
}

RoundPart SlotRounds::PartOf(int64_t round) const {
  return PartOfRound(rows_.x.dim(0), rounds_, round);
}

absl::Status SlotRounds::OnWire(
    kernels::Stream& stream, StreamEvent* done,
    absl::FunctionRef<absl::Status(kernels::Stream&)> collective) {
  if (wire_ == nullptr) {
    return collective(stream);
  }
  TESSERA_RETURN_IF_ERROR(placed_->Record(stream));
  TESSERA_RETURN_IF_ERROR(placed_->Wait(*wire_));
  TESSERA_RETURN_IF_ERROR(collective(*wire_));
  return done->Record(*wire_);
}

absl::Status SlotRounds::Await(StreamEvent* done, kernels::Stream& stream) {
  return done == nullptr ? absl::OkStatus() : done->Wait(stream);
}

absl::Status SlotRounds::SendRound(kernels::Stream& stream, int64_t round) {
  const auto [begin, count] = PartOf(round);
  Slots& slots = SlotsOf(round);
  TESSERA_RETURN_IF_ERROR(slots.exchange->Place(stream, rows_.x.Rows(begin, count),
                                                rows_.expert_ids.Rows(begin, count),
                                                rows_.weights.Rows(begin, count)));
  return OnWire(stream, slots.gathered.get(),
                [&](kernels::Stream& wire) { return slots.exchange->Gather(wire); });
}

absl::Status SlotRounds::ReturnRound(kernels::Stream& stream, int64_t round) {
  Slots& slots = SlotsOf(round);
  slots.exchange->Pack(stream);
  TESSERA_RETURN_IF_ERROR(
      OnWire(stream, slots.returned.get(),
             [&](kernels::Stream& wire) { return slots.exchange->Return(wire); }));
  if (round + 2 < rounds_.count) {
    TESSERA_RETURN_IF_ERROR(SendRound(stream, round + 2));
  }
  return round > 0 ? SumRound(stream, round - 1) : absl::OkStatus();
}

absl::Status SlotRounds::SumRound(kernels::Stream& stream, int64_t round) {
  const auto [begin, count] = PartOf(round);
  Slots& slots = SlotsOf(round);
  TESSERA_RETURN_IF_ERROR(Await(slots.returned.get(), stream));
  slots.exchange->Sum(stream, rows_.weights.Rows(begin, count),
                      rows_.out.Rows(begin, count));
  return absl::OkStatus();
}

absl::Status SlotRounds::Send(kernels::Stream& stream, const ExchangeRows& rows) {
  if (rows.x.dim(0) > max_tokens_) {
    return InternalF("{} tokens in rounds for {}", rows.x.dim(0), max_tokens_);
  }
  rows_ = rows;
  next_round_ = 0;
  for (int64_t round = 0; round < std::min<int64_t>(rounds_.count, 2); ++round) {
    TESSERA_RETURN_IF_ERROR(SendRound(stream, round));
  }
  return absl::OkStatus();
}

absl::StatusOr<ExpertBatch> SlotRounds::Receive(kernels::Stream& stream) {
  TESSERA_CHECK(next_round_ < rounds_.count);
  const int64_t round = next_round_++;
  if (round > 0) {
    TESSERA_RETURN_IF_ERROR(ReturnRound(stream, round - 1));
  }
  Slots& slots = SlotsOf(round);
  TESSERA_RETURN_IF_ERROR(Await(slots.gathered.get(), stream));
  return slots.exchange->List(stream);
}

absl::Status SlotRounds::Finish(kernels::Stream& stream) {
  TESSERA_CHECK(next_round_ == rounds_.count);
  TESSERA_RETURN_IF_ERROR(ReturnRound(stream, rounds_.count - 1));
  return SumRound(stream, rounds_.count - 1);
}

absl::StatusOr<ExpertBatch> SlotRounds::Dispatch(kernels::Stream& stream, TensorView x,
                                                 TensorView expert_ids,
                                                 TensorView weights) {
  if (rounds_.count > 1) {
    return InternalF("dispatch at once of an exchange in {} rounds", rounds_.count);
  }
  TESSERA_RETURN_IF_ERROR(
      Send(stream, {.x = x, .expert_ids = expert_ids, .weights = weights, .out = {}}));
  return Receive(stream);
}

absl::Status SlotRounds::Combine(kernels::Stream& stream, TensorView out) {
  rows_.out = out;
  return Finish(stream);
}

absl::Status SlotRounds::Check() {
  absl::Status status;
  for (const Slots& slots : slots_) {
    if (slots.exchange != nullptr) {
      status.Update(slots.exchange->Check());
    }
  }
  return status;
}

}  // namespace tessera::worker
