// DispatchMessage: what one rank sends to another in ExpertExchange::Dispatch, and its
// validation. A peer's bytes are checked in full before any of them is used as an index.
//
//   offset  size              field
//   0       8                 placement digest: of expert_owner, sizes and formats
//   8       4                 exchange number: counts the Dispatch calls of the group
//   12      4                 n = number of rows
//   16      4                 m = number of items, n <= m <= n k
//   20      4                 rounds of the exchange, at least: as many as the sender
//   needs,
//                             or has heard that another does
//   24      4 n               items of each row, 1 to k; they add up to m
//   24+4n   4 m               logical expert of each item, row by row in router-slot
//   order
//           0 or 4            zero, up to a multiple of 8
//           w m               routing weight of each item, in the type of activations;
//                             w = 0 where weights stay at home
//           0 or 4            zero, up to a multiple of 8
//           n row_bytes       the rows
//           0 to 7            zero, up to a multiple of 8
//
// Integers are of the host's byte order: the ranks of a group run on one architecture.
// Used by the general path of ExpertExchange alone.
#ifndef TESSERA_WORKER_COMM_EXCHANGE_MESSAGE_H_
#define TESSERA_WORKER_COMM_EXCHANGE_MESSAGE_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tessera::worker {

// What sender and receiver agree on.
struct ExchangeShape {
  uint64_t placement_digest = 0;
  int64_t max_rows = 0;
  int64_t max_rounds = 1;
  int64_t experts_per_token = 0;
  int64_t row_bytes = 0;
  int64_t output_bytes = 0;  // of the row that comes back for an item
  int64_t weight_bytes = 0;  // w, of one item
  std::span<const int> expert_owner;
};

// FNV-1a over the numbers that must be equal on all ranks. A row's bytes tell its format.
uint64_t PlacementDigest(std::span<const int> expert_owner, int64_t hidden_size,
                         int64_t experts_per_token, int64_t element_bytes,
                         int64_t weight_bytes, int64_t row_bytes);

// Bytes of a message of so many rows and items.
int64_t MessageBytes(const ExchangeShape& shape, int64_t num_rows, int64_t num_items);

// A message under construction: the header is written, the spans are to be filled.
struct MessageDraft {
  std::span<int32_t> items_of_row;
  std::span<int32_t> expert_of_item;
  std::byte* weight_of_item = nullptr;
  std::byte* rows = nullptr;
  int64_t bytes = 0;
};

// Lays out a message at `at`, which is 8-byte aligned and has MessageBytes() of room.
MessageDraft DraftMessage(const ExchangeShape& shape, uint32_t exchange_number,
                          int64_t num_rounds, int64_t num_rows, int64_t num_items,
                          std::byte* at);

// A received message; views into the receive buffer.
struct DispatchMessage {
  int64_t num_rounds = 1;
  std::span<const int32_t> items_of_row;
  std::span<const int32_t> expert_of_item;
  const std::byte* weight_of_item = nullptr;
  const std::byte* rows = nullptr;
};

// `bytes` is 8-byte aligned. kDataLoss with the field at fault if a length, count or
// expert is out of its range; kFailedPrecondition if the sender has another placement or
// is at another exchange. Every expert of the result belongs to `rank`.
absl::StatusOr<DispatchMessage> ParseMessage(const ExchangeShape& shape,
                                             uint32_t exchange_number, int rank,
                                             std::span<const std::byte> bytes);

}  // namespace tessera::worker

#endif  // TESSERA_WORKER_COMM_EXCHANGE_MESSAGE_H_
