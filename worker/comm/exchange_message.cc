#include "worker/comm/exchange_message.h"

#include <cstring>

#include "common/check.h"
#include "common/status.h"

namespace tessera::worker {
namespace {

struct Header {
  uint64_t placement_digest;
  uint32_t exchange_number;
  int32_t num_rows;
  int32_t num_items;
  int32_t num_rounds;
};
static_assert(sizeof(Header) == 24);

constexpr int64_t kWordBytes = sizeof(int32_t);

int64_t RoundUp(int64_t bytes) { return (bytes + 7) / 8 * 8; }

int64_t WeightsOffset(int64_t num_rows, int64_t num_items) {
  return RoundUp(static_cast<int64_t>(sizeof(Header)) +
                 (num_rows + num_items) * kWordBytes);
}

int64_t RowsOffset(const ExchangeShape& shape, int64_t num_rows, int64_t num_items) {
  return WeightsOffset(num_rows, num_items) + RoundUp(num_items * shape.weight_bytes);
}

absl::Status CheckHeader(const ExchangeShape& shape, uint32_t exchange_number,
                         const Header& header, size_t bytes) {
  if (header.placement_digest != shape.placement_digest) {
    return StatusF(absl::StatusCode::kFailedPrecondition,
                   "expert placement {:#x}, expected {:#x}", header.placement_digest,
                   shape.placement_digest);
  }
  if (header.exchange_number != exchange_number) {
    return StatusF(absl::StatusCode::kFailedPrecondition, "exchange {}, expected {}",
                   header.exchange_number, exchange_number);
  }
  if (header.num_rows < 0 || header.num_rows > shape.max_rows) {
    return DataLossF("{} rows, expected at most {}", header.num_rows, shape.max_rows);
  }
  if (header.num_rounds < 1 || header.num_rounds > shape.max_rounds) {
    return DataLossF("{} rounds, expected 1 to {}", header.num_rounds, shape.max_rounds);
  }
  if (header.num_items < header.num_rows ||
      header.num_items > header.num_rows * shape.experts_per_token) {
    return DataLossF("{} items of {} rows with {} experts each at most", header.num_items,
                     header.num_rows, shape.experts_per_token);
  }
  const int64_t expected = MessageBytes(shape, header.num_rows, header.num_items);
  if (static_cast<int64_t>(bytes) != expected) {
    return DataLossF("{} bytes, expected {} for {} rows and {} items", bytes, expected,
                     header.num_rows, header.num_items);
  }
  return absl::OkStatus();
}

absl::Status CheckItems(const ExchangeShape& shape, int rank,
                        const DispatchMessage& message) {
  int64_t total = 0;
  for (const int32_t items : message.items_of_row) {
    if (items < 1 || items > shape.experts_per_token) {
      return DataLossF("a row with {} items, expected 1 to {}", items,
                       shape.experts_per_token);
    }
    total += items;
  }
  if (total != static_cast<int64_t>(message.expert_of_item.size())) {
    return DataLossF("rows have {} items, the header says {}", total,
                     message.expert_of_item.size());
  }
  for (const int32_t expert : message.expert_of_item) {
    if (expert < 0 || static_cast<size_t>(expert) >= shape.expert_owner.size() ||
        shape.expert_owner[static_cast<size_t>(expert)] != rank) {
      return DataLossF("expert {} is not on rank {}", expert, rank);
    }
  }
  return absl::OkStatus();
}

}  // namespace

uint64_t PlacementDigest(std::span<const int> expert_owner, int64_t hidden_size,
                         int64_t experts_per_token, int64_t element_bytes,
                         int64_t weight_bytes, int64_t row_bytes) {
  uint64_t digest = 0xcbf29ce484222325;
  const auto add = [&digest](uint64_t value) {
    for (int shift = 0; shift < 64; shift += 8) {
      digest = (digest ^ ((value >> shift) & 0xff)) * 0x100000001b3;
    }
  };
  add(static_cast<uint64_t>(hidden_size));
  add(static_cast<uint64_t>(experts_per_token));
  add(static_cast<uint64_t>(element_bytes));
  add(static_cast<uint64_t>(weight_bytes));
  add(static_cast<uint64_t>(row_bytes));
  for (const int owner : expert_owner) {
    add(static_cast<uint64_t>(owner));
  }
  return digest;
}

int64_t MessageBytes(const ExchangeShape& shape, int64_t num_rows, int64_t num_items) {
  return RowsOffset(shape, num_rows, num_items) + RoundUp(num_rows * shape.row_bytes);
}

MessageDraft DraftMessage(const ExchangeShape& shape, uint32_t exchange_number,
                          int64_t num_rounds, int64_t num_rows, int64_t num_items,
                          std::byte* at) {
  const Header header = {shape.placement_digest, exchange_number,
                         static_cast<int32_t>(num_rows), static_cast<int32_t>(num_items),
                         static_cast<int32_t>(num_rounds)};
  const int64_t weights_offset = WeightsOffset(num_rows, num_items);
  const int64_t rows_offset = RowsOffset(shape, num_rows, num_items);
  MessageDraft draft;
  draft.bytes = MessageBytes(shape, num_rows, num_items);
  // Every padding, so that no byte of an earlier message leaves the rank.
  std::memset(at + weights_offset - 8, 0, 8);
  std::memset(at + rows_offset - 8, 0, 8);
  std::memset(at + draft.bytes - 8, 0, 8);
  std::memcpy(at, &header, sizeof(header));
  auto* words = reinterpret_cast<int32_t*>(at + sizeof(header));
  draft.items_of_row = {words, static_cast<size_t>(num_rows)};
  draft.expert_of_item = {words + num_rows, static_cast<size_t>(num_items)};
  draft.weight_of_item = at + weights_offset;
  draft.rows = at + rows_offset;
  return draft;
}

absl::StatusOr<DispatchMessage> ParseMessage(const ExchangeShape& shape,
                                             uint32_t exchange_number, int rank,
                                             std::span<const std::byte> bytes) {
  TESSERA_CHECK(reinterpret_cast<uintptr_t>(bytes.data()) % 8 == 0);
  Header header;
  if (bytes.size() < sizeof(header)) {
    return DataLossF("{} bytes, expected a header of {}", bytes.size(), sizeof(header));
  }
  std::memcpy(&header, bytes.data(), sizeof(header));
  absl::Status status = CheckHeader(shape, exchange_number, header, bytes.size());
  if (!status.ok()) {
    return status;
  }
  const auto* words = reinterpret_cast<const int32_t*>(bytes.data() + sizeof(header));
  DispatchMessage message;
  message.num_rounds = header.num_rounds;
  message.items_of_row = {words, static_cast<size_t>(header.num_rows)};
  message.expert_of_item = {words + header.num_rows,
                            static_cast<size_t>(header.num_items)};
  message.weight_of_item =
      bytes.data() + WeightsOffset(header.num_rows, header.num_items);
  message.rows = bytes.data() + RowsOffset(shape, header.num_rows, header.num_items);
  status = CheckItems(shape, rank, message);
  if (!status.ok()) {
    return status;
  }
  return message;
}

}  // namespace tessera::worker
