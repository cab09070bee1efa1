#include "worker/comm/routed_exchange.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "worker/comm/exchange_routing.h"

namespace tessera::worker {

using kernels::DType;
using kernels::TensorView;

namespace {

// Uninitialised, so that the pages of a worst case that never comes stay untouched.
std::unique_ptr<std::byte[]> HostBuffer(int64_t bytes) {
  return std::make_unique_for_overwrite<std::byte[]>(static_cast<size_t>(bytes));
}

ExchangeShape ShapeOf(const ExpertExchangeOptions& options, DType dtype) {
  const auto element_bytes = static_cast<int64_t>(model::DTypeBits(dtype) / 8);
  ExchangeShape shape;
  shape.weight_bytes = options.weights_travel ? element_bytes : 0;
  shape.placement_digest =
      PlacementDigest(options.expert_owner, options.hidden_size,
                      options.experts_per_token, element_bytes, shape.weight_bytes);
  shape.max_rows = options.max_tokens;
  shape.experts_per_token = options.experts_per_token;
  shape.row_bytes = options.hidden_size * element_bytes;
  shape.expert_owner = options.expert_owner;
  return shape;
}

}  // namespace

RoutedExchange::Capacity::Capacity(const ExpertExchangeOptions& options, int num_ranks)
    : own_items(options.max_tokens * options.experts_per_token),
      sent_rows(options.max_tokens *
                std::min<int64_t>(options.experts_per_token, num_ranks - 1)),
      rows(options.max_tokens * num_ranks),
      items(own_items * num_ranks) {}

absl::StatusOr<std::unique_ptr<ExpertExchange>> RoutedExchange::Create(
    const ExpertExchangeOptions& options, kernels::KernelBackend* backend,
    Communicator* ep) {
  const Capacity capacity(options, ep->size());
  const auto allocate = [&](int64_t rows) {
    return backend->Allocate(model::DTypeBytes(
        backend->activation_dtype(), static_cast<size_t>(rows * options.hidden_size)));
  };
  Memory memory;
  TESSERA_ASSIGN_OR_RETURN(memory.rows, allocate(capacity.rows));
  TESSERA_ASSIGN_OR_RETURN(memory.outputs, allocate(capacity.items));
  TESSERA_ASSIGN_OR_RETURN(memory.returned, allocate(capacity.own_items));
  TESSERA_ASSIGN_OR_RETURN(ExchangeLists lists,
                           AllocateLists(options, capacity.items, backend));
  return std::unique_ptr<ExpertExchange>(
      new RoutedExchange(options, backend, ep, std::move(lists), std::move(memory)));
}

RoutedExchange::RoutedExchange(const ExpertExchangeOptions& options,
                               kernels::KernelBackend* backend, Communicator* ep,
                               ExchangeLists lists, Memory memory)
    : options_(options),
      backend_(backend),
      ep_(ep),
      capacity_(options, ep->size()),
      dtype_(backend->activation_dtype()),
      shape_(ShapeOf(options_, dtype_)),
      lists_(std::move(lists)),
      items_(options_.expert_owner, ep->rank(), capacity_.items,
             TravellingWeights(options_, dtype_), std::move(lists_.items)),
      destinations_(static_cast<size_t>(ep->size())),
      sources_(static_cast<size_t>(ep->size())),
      send_counts_(static_cast<size_t>(ep->size())),
      recv_counts_(static_cast<size_t>(ep->size())),
      place_of_arrival_(static_cast<size_t>(capacity_.items)),
      memory_(std::move(memory)) {
  const int64_t others = ep->size() - 1;
  const int64_t largest = MessageBytes(shape_, options.max_tokens, capacity_.own_items);
  // The messages of one rank share its items; each has a header and paddings of its own.
  // Combine sends back at most the items of all other ranks.
  const int64_t messages =
      MessageBytes(shape_, capacity_.sent_rows, capacity_.own_items) +
      others * MessageBytes(shape_, 1, 1);
  sent_bytes_ = std::max(messages, capacity_.own_items * others * shape_.row_bytes);
  received_bytes_ = others * largest;
  own_message_ =
      HostBuffer(MessageBytes(shape_, options.max_tokens, capacity_.own_items));
  sent_ = HostBuffer(sent_bytes_);
  received_ = HostBuffer(received_bytes_);
}

absl::Status RoutedExchange::Fail(absl::Status status, std::string_view during) {
  const std::string text(status.message());
  ep_->Abort(text);
  return WithContext(status, during);
}

absl::StatusOr<ExpertBatch> RoutedExchange::Dispatch(kernels::Stream& stream,
                                                     TensorView x, TensorView expert_ids,
                                                     TensorView weights) {
  absl::Status status = stream.Synchronize();
  if (status.ok()) {
    status = CheckRouting(options_, x, expert_ids, weights);
  }
  if (!status.ok()) {
    return Fail(std::move(status), "expert dispatch");
  }
  absl::StatusOr<ExpertBatch> batch = DispatchRows(x, expert_ids, weights);
  if (!batch.ok()) {
    return Fail(batch.status(), "expert dispatch");
  }
  return batch;
}

absl::StatusOr<ExpertBatch> RoutedExchange::DispatchRows(TensorView x,
                                                         TensorView expert_ids,
                                                         TensorView weights) {
  TESSERA_CHECK(x.dtype == dtype_);
  num_tokens_ = x.dim(0);
  weights_ = options_.weights_travel
                 ? TensorView(lists_.ones.data(), dtype_,
                              {num_tokens_, options_.experts_per_token})
                 : weights;
  ++exchange_number_;
  CountDestinations(expert_ids);
  LayOutMessages();
  FillMessages(x, expert_ids, weights);
  int64_t sent = 0;
  for (const int64_t count : send_counts_) {
    sent += count;
  }
  TESSERA_CHECK_LE(sent, sent_bytes_);
  TESSERA_RETURN_IF_ERROR(ep_->AllToAllV(
      {sent_.get(), static_cast<size_t>(sent)}, send_counts_,
      {received_.get(), static_cast<size_t>(received_bytes_)}, recv_counts_));
  TESSERA_RETURN_IF_ERROR(ParseSources());
  return PlaceItems();
}

void RoutedExchange::CountDestinations(TensorView expert_ids) {
  for (Destination& to : destinations_) {
    to = Destination();
  }
  for (int64_t t = 0; t < num_tokens_; ++t) {
    for (int64_t j = 0; j < options_.experts_per_token; ++j) {
      Destination& to = destination(expert_ids.row<int32_t>(t)[j]);
      ++to.num_items;
      if (to.last_token != t) {
        to.last_token = t;
        ++to.num_rows;
      }
    }
  }
}

void RoutedExchange::LayOutMessages() {
  std::byte* at = sent_.get();
  int64_t return_row = 0;
  const auto own = static_cast<size_t>(ep_->rank());
  for (size_t rank = 0; rank < destinations_.size(); ++rank) {
    Destination& to = destinations_[rank];
    to.last_token = -1;
    if (rank == own) {
      // The own message is parsed like the others, but it is not on the wire.
      to.draft = DraftMessage(shape_, exchange_number_, to.num_rows, to.num_items,
                              own_message_.get());
      send_counts_[rank] = 0;
      continue;
    }
    to.draft = DraftMessage(shape_, exchange_number_, to.num_rows, to.num_items, at);
    at += to.draft.bytes;
    send_counts_[rank] = to.draft.bytes;
    to.first_return_row = return_row;
    return_row += to.num_items;
  }
  destinations_[own].first_return_row = return_row;
}

void RoutedExchange::FillMessages(TensorView x, TensorView expert_ids,
                                  TensorView weights) {
  const auto weight_bytes = static_cast<size_t>(shape_.weight_bytes);
  const auto* const weight_of_slot = static_cast<const std::byte*>(weights.data);
  const int64_t k = options_.experts_per_token;
  const auto row_bytes = static_cast<size_t>(shape_.row_bytes);
  auto* const row_of_slot = static_cast<int32_t*>(lists_.row_of_slot.data());
  for (int64_t t = 0; t < num_tokens_; ++t) {
    for (int64_t j = 0; j < k; ++j) {
      const int32_t expert = expert_ids.row<int32_t>(t)[j];
      Destination& to = destination(expert);
      if (to.last_token != t) {
        to.last_token = t;
        std::memcpy(to.draft.rows + static_cast<size_t>(to.next_row) * row_bytes,
                    x.Rows(t, 1).data, row_bytes);
        to.draft.items_of_row[static_cast<size_t>(to.next_row++)] = 0;
      }
      ++to.draft.items_of_row[static_cast<size_t>(to.next_row - 1)];
      row_of_slot[t * k + j] = static_cast<int32_t>(to.first_return_row + to.next_item);
      if (weight_bytes != 0) {
        std::memcpy(
            to.draft.weight_of_item + static_cast<size_t>(to.next_item) * weight_bytes,
            weight_of_slot + static_cast<size_t>(t * k + j) * weight_bytes, weight_bytes);
      }
      to.draft.expert_of_item[static_cast<size_t>(to.next_item++)] = expert;
    }
  }
}

absl::Status RoutedExchange::ParseSources() {
  const auto own = static_cast<size_t>(ep_->rank());
  const std::byte* at = received_.get();
  for (size_t rank = 0; rank < sources_.size(); ++rank) {
    const auto bytes = static_cast<size_t>(recv_counts_[rank]);
    const std::span<const std::byte> message =
        rank == own
            ? std::span<const std::byte>(
                  own_message_.get(), static_cast<size_t>(destinations_[own].draft.bytes))
            : std::span<const std::byte>(at, bytes);
    absl::StatusOr<DispatchMessage> parsed;
    if (bytes % 8 != 0) {
      parsed = DataLossF("{} bytes, expected a multiple of 8", bytes);
    } else if (rank == own && bytes != 0) {
      parsed = DataLossF("{} bytes from itself, expected none", bytes);
    } else {
      parsed = ParseMessage(shape_, exchange_number_, ep_->rank(), message);
    }
    if (!parsed.ok()) {
      return WithContext(parsed.status(), fmt::format("message of rank {}", rank));
    }
    sources_[rank].message = *parsed;
    at += bytes;
  }
  return absl::OkStatus();
}

ExpertBatch RoutedExchange::PlaceItems() {
  items_.Begin();
  int64_t arrivals = 0;
  for (Source& from : sources_) {
    from.first_item = arrivals;
    for (const int32_t expert : from.message.expert_of_item) {
      items_.Count(expert);
    }
    arrivals += static_cast<int64_t>(from.message.expert_of_item.size());
  }
  items_.Offset();
  auto* rows = static_cast<std::byte*>(memory_.rows.data());
  int32_t row = 0;
  size_t arrival = 0;
  for (const Source& from : sources_) {
    const size_t bytes =
        from.message.items_of_row.size() * static_cast<size_t>(shape_.row_bytes);
    if (bytes != 0) {
      std::memcpy(rows, from.message.rows, bytes);
    }
    rows += bytes;
    size_t item = 0;
    for (const int32_t items_of_row : from.message.items_of_row) {
      for (int32_t i = 0; i < items_of_row; ++i) {
        const int32_t place = items_.Place(from.message.expert_of_item[item], row);
        items_.SetWeight(place, from.message.weight_of_item +
                                    item * static_cast<size_t>(shape_.weight_bytes));
        place_of_arrival_[arrival++] = place;
        ++item;
      }
      ++row;
    }
  }
  const int64_t d = options_.hidden_size;
  return ExpertBatch{.rows = {memory_.rows.data(), dtype_, {int64_t{row}, d}},
                     .row_of_item = items_.row_of_item(),
                     .item_offsets = items_.item_offsets(),
                     .item_weights = items_.item_weights(),
                     .out = {memory_.outputs.data(), dtype_, {items_.num_items(), d}}};
}

absl::Status RoutedExchange::ReturnOutputs() {
  const auto row_bytes = static_cast<size_t>(shape_.row_bytes);
  const auto* outputs = static_cast<const std::byte*>(memory_.outputs.data());
  auto* returned = static_cast<std::byte*>(memory_.returned.data());
  const auto own = static_cast<size_t>(ep_->rank());
  std::byte* at = sent_.get();
  size_t remote_bytes = 0;
  for (size_t rank = 0; rank < sources_.size(); ++rank) {
    const Source& from = sources_[rank];
    const size_t num_items = from.message.expert_of_item.size();
    const auto own_row = static_cast<size_t>(destinations_[own].first_return_row);
    std::byte* to = rank == own ? returned + own_row * row_bytes : at;
    for (size_t i = 0; i < num_items; ++i) {
      const auto place = static_cast<size_t>(
          place_of_arrival_[static_cast<size_t>(from.first_item) + i]);
      std::memcpy(to + i * row_bytes, outputs + place * row_bytes, row_bytes);
    }
    send_counts_[rank] = rank == own ? 0 : static_cast<int64_t>(num_items * row_bytes);
    at += send_counts_[rank];
    if (rank != own) {
      remote_bytes += static_cast<size_t>(destinations_[rank].num_items) * row_bytes;
    }
  }
  TESSERA_RETURN_IF_ERROR(
      ep_->AllToAllV({sent_.get(), static_cast<size_t>(at - sent_.get())}, send_counts_,
                     {returned, remote_bytes}, recv_counts_));
  for (size_t rank = 0; rank < destinations_.size(); ++rank) {
    const int64_t expected =
        rank == own ? 0 : destinations_[rank].num_items * shape_.row_bytes;
    if (recv_counts_[rank] != expected) {
      return DataLossF("rank {} returned {} bytes, expected {}", rank, recv_counts_[rank],
                       expected);
    }
  }
  return absl::OkStatus();
}

absl::Status RoutedExchange::Combine(kernels::Stream& stream, TensorView out) {
  absl::Status status = stream.Synchronize();
  if (status.ok()) {
    status = ReturnOutputs();
  }
  if (!status.ok()) {
    return Fail(std::move(status), "expert combine");
  }
  const int64_t k = options_.experts_per_token;
  const TensorView y(memory_.returned.data(), dtype_,
                     {num_tokens_ * k, options_.hidden_size});
  const TensorView row_of_slot(lists_.row_of_slot.data(), DType::kI32, {num_tokens_, k});
  backend_->CombineExperts(stream, y, row_of_slot, weights_, out);
  return absl::OkStatus();
}

}  // namespace tessera::worker
