#include "worker/comm/row_exchange.h"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::worker {
namespace {

// Uninitialised, so that the pages of a worst case that never comes stay untouched.
std::unique_ptr<std::byte[]> HostBuffer(int64_t bytes) {
  return std::make_unique_for_overwrite<std::byte[]>(static_cast<size_t>(bytes));
}

}  // namespace

RowExchange::RowExchange(const ExchangeShape& shape, Communicator* comm)
    : shape_(shape),
      comm_(comm),
      destinations_(static_cast<size_t>(comm->size())),
      sources_(static_cast<size_t>(comm->size())),
      send_counts_(static_cast<size_t>(comm->size())),
      recv_counts_(static_cast<size_t>(comm->size())) {
  const int64_t others = comm->size() - 1;
  const int64_t sent_rows =
      shape.max_rows * std::min<int64_t>(shape.experts_per_token, others);
  const int64_t largest = MessageBytes(shape_, shape.max_rows, max_items());
  // The messages of one rank share its items; each has a header and paddings of its own.
  // Return sends back at most the items of all other ranks.
  const int64_t messages =
      MessageBytes(shape_, sent_rows, max_items()) + others * MessageBytes(shape_, 1, 1);
  sent_bytes_ = std::max(messages, max_items() * others * shape_.output_bytes);
  received_bytes_ = others * largest;
  own_message_ = HostBuffer(largest);
  sent_ = HostBuffer(sent_bytes_);
  received_ = HostBuffer(received_bytes_);
}

absl::StatusOr<std::span<const DispatchMessage>> RowExchange::Dispatch(
    std::span<const DispatchMessage> in, int64_t num_rounds,
    std::span<int32_t> return_rows) {
  ++exchange_number_;
  CountDestinations(in);
  LayOutMessages(num_rounds);
  FillMessages(in, return_rows);
  int64_t sent = 0;
  for (const int64_t count : send_counts_) {
    sent += count;
  }
  TESSERA_CHECK_LE(sent, sent_bytes_);
  TESSERA_RETURN_IF_ERROR(comm_->AllToAllV(
      {sent_.get(), static_cast<size_t>(sent)}, send_counts_,
      {received_.get(), static_cast<size_t>(received_bytes_)}, recv_counts_));
  TESSERA_RETURN_IF_ERROR(ParseSources());
  return std::span<const DispatchMessage>(sources_);
}

void RowExchange::CountDestinations(std::span<const DispatchMessage> in) {
  for (Destination& to : destinations_) {
    to = Destination();
  }
  int64_t row = 0;
  for (const DispatchMessage& message : in) {
    size_t item = 0;
    for (const int32_t items_of_row : message.items_of_row) {
      for (int32_t i = 0; i < items_of_row; ++i) {
        Destination& to = destination(message.expert_of_item[item++]);
        ++to.num_items;
        if (to.last_row != row) {
          to.last_row = row;
          ++to.num_rows;
        }
      }
      ++row;
    }
  }
  TESSERA_CHECK_LE(row, shape_.max_rows);
}

void RowExchange::LayOutMessages(int64_t num_rounds) {
  std::byte* at = sent_.get();
  int64_t return_row = 0;
  for (size_t rank = 0; rank < destinations_.size(); ++rank) {
    Destination& to = destinations_[rank];
    to.last_row = -1;
    if (rank == own()) {
      to.draft = DraftMessage(shape_, exchange_number_, num_rounds, to.num_rows,
                              to.num_items, own_message_.get());
      send_counts_[rank] = 0;
      continue;
    }
    to.draft =
        DraftMessage(shape_, exchange_number_, num_rounds, to.num_rows, to.num_items, at);
    at += to.draft.bytes;
    send_counts_[rank] = to.draft.bytes;
    to.first_return_row = return_row;
    return_row += to.num_items;
  }
  // What came back over the wire lies first, in rank order.
  destinations_[own()].first_return_row = return_row;
}

void RowExchange::FillMessages(std::span<const DispatchMessage> in,
                               std::span<int32_t> return_rows) {
  const auto weight_bytes = static_cast<size_t>(shape_.weight_bytes);
  const auto row_bytes = static_cast<size_t>(shape_.row_bytes);
  int64_t row = 0;
  size_t returned = 0;
  for (const DispatchMessage& message : in) {
    size_t item = 0;
    const std::byte* values = message.rows;
    for (const int32_t items_of_row : message.items_of_row) {
      for (int32_t i = 0; i < items_of_row; ++i, ++item) {
        const int32_t expert = message.expert_of_item[item];
        Destination& to = destination(expert);
        if (to.last_row != row) {
          to.last_row = row;
          std::memcpy(to.draft.rows + static_cast<size_t>(to.next_row) * row_bytes,
                      values, row_bytes);
          to.draft.items_of_row[static_cast<size_t>(to.next_row++)] = 0;
        }
        ++to.draft.items_of_row[static_cast<size_t>(to.next_row - 1)];
        return_rows[returned++] =
            static_cast<int32_t>(to.first_return_row + to.next_item);
        if (weight_bytes != 0) {
          std::memcpy(
              to.draft.weight_of_item + static_cast<size_t>(to.next_item) * weight_bytes,
              message.weight_of_item + item * weight_bytes, weight_bytes);
        }
        to.draft.expert_of_item[static_cast<size_t>(to.next_item++)] = expert;
      }
      values += row_bytes;
      ++row;
    }
  }
}

absl::Status RowExchange::ParseSources() {
  const std::byte* at = received_.get();
  for (size_t rank = 0; rank < sources_.size(); ++rank) {
    const auto bytes = static_cast<size_t>(recv_counts_[rank]);
    const std::span<const std::byte> message =
        rank == own() ? std::span<const std::byte>(
                            own_message_.get(),
                            static_cast<size_t>(destinations_[rank].draft.bytes))
                      : std::span<const std::byte>(at, bytes);
    absl::StatusOr<DispatchMessage> parsed;
    if (bytes % 8 != 0) {
      parsed = DataLossF("{} bytes, expected a multiple of 8", bytes);
    } else if (rank == own() && bytes != 0) {
      parsed = DataLossF("{} bytes from itself, expected none", bytes);
    } else {
      parsed = ParseMessage(shape_, exchange_number_, comm_->rank(), message);
    }
    if (!parsed.ok()) {
      return WithContext(parsed.status(),
                         fmt::format("message of rank {} of {}", rank, comm_->name()));
    }
    sources_[rank] = *parsed;
    at += bytes;
  }
  return absl::OkStatus();
}

absl::Status RowExchange::Return(const std::byte* outputs,
                                 std::span<const int32_t> row_of_item,
                                 std::byte* returned) {
  const auto row_bytes = static_cast<size_t>(shape_.output_bytes);
  std::byte* at = sent_.get();
  size_t remote_bytes = 0;
  size_t first_item = 0;
  for (size_t rank = 0; rank < sources_.size(); ++rank) {
    const size_t num_items = sources_[rank].expert_of_item.size();
    const auto own_row = static_cast<size_t>(destinations_[own()].first_return_row);
    std::byte* const to = rank == own() ? returned + own_row * row_bytes : at;
    for (size_t i = 0; i < num_items; ++i) {
      std::memcpy(to + i * row_bytes,
                  outputs + static_cast<size_t>(row_of_item[first_item + i]) * row_bytes,
                  row_bytes);
    }
    first_item += num_items;
    send_counts_[rank] = rank == own() ? 0 : static_cast<int64_t>(num_items * row_bytes);
    at += send_counts_[rank];
    if (rank != own()) {
      remote_bytes += static_cast<size_t>(destinations_[rank].num_items) * row_bytes;
    }
  }
  TESSERA_RETURN_IF_ERROR(
      comm_->AllToAllV({sent_.get(), static_cast<size_t>(at - sent_.get())}, send_counts_,
                       {returned, remote_bytes}, recv_counts_));
  return CheckReturned();
}

absl::Status RowExchange::CheckReturned() const {
  for (size_t rank = 0; rank < destinations_.size(); ++rank) {
    const int64_t expected =
        rank == own() ? 0 : destinations_[rank].num_items * shape_.output_bytes;
    if (recv_counts_[rank] != expected) {
      return DataLossF("rank {} of {} returned {} bytes, expected {}", rank,
                       comm_->name(), recv_counts_[rank], expected);
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera::worker
