#include "worker/comm/kv_transfer.h"

#include <cstring>
#include <new>
#include <numeric>

#include "common/status.h"
#include "common/status_macros.h"
#include "engram_store/table/crc32c.h"

namespace tessera::worker {
namespace {

struct Header {
  uint64_t epoch = 0;
  uint64_t step = 0;
  uint64_t id = 0;
  uint64_t num_bytes = 0;
  uint32_t crc = 0;
  uint32_t zero[7] = {};
};
static_assert(sizeof(Header) == 64);

constexpr int64_t kHeaderBytes = sizeof(Header);

Header HeaderAt(const std::byte* at) {
  Header header;
  std::memcpy(&header, at, sizeof(header));
  return header;
}

}  // namespace

absl::StatusOr<std::unique_ptr<KvTransfer>> KvTransfer::Create(
    const KvTransferOptions& options, Communicator* group) {
  int64_t bytes = 0;
  if (options.max_messages < 1 || options.max_payload_bytes < 1 ||
      __builtin_add_overflow(options.max_payload_bytes, kHeaderBytes, &bytes) ||
      __builtin_mul_overflow(bytes, options.max_messages, &bytes)) {
    return InvalidArgumentF(
        "{} blocks of {} bytes in a step of transfers, expected at least one of each",
        options.max_messages, options.max_payload_bytes);
  }
  std::unique_ptr<KvTransfer> transfer(new KvTransfer(options, group));
  // Untouched pages of a worst case that never comes cost nothing.
  for (std::unique_ptr<std::byte[]>* buffer : {&transfer->send_, &transfer->recv_}) {
    buffer->reset(new (std::nothrow) std::byte[transfer->capacity_]);
    if (*buffer == nullptr) {
      return StatusF(absl::StatusCode::kResourceExhausted,
                     "no memory for {} bytes of KV blocks on their way",
                     transfer->capacity_);
    }
  }
  return transfer;
}

KvTransfer::KvTransfer(const KvTransferOptions& options, Communicator* group)
    : options_(options),
      group_(group),
      capacity_(static_cast<size_t>(options.max_messages *
                                    (options.max_payload_bytes + kHeaderBytes))),
      send_counts_(static_cast<size_t>(group->size()), 0),
      recv_counts_(static_cast<size_t>(group->size()), 0),
      taken_(static_cast<size_t>(group->size()), 0) {}

void KvTransfer::Begin(uint64_t epoch, uint64_t step) {
  epoch_ = epoch;
  step_ = step;
  num_staged_ = staged_bytes_ = sent_bytes_ = 0;
  last_to_ = 0;
  for (std::vector<int64_t>* counts : {&send_counts_, &recv_counts_, &taken_}) {
    counts->assign(counts->size(), 0);
  }
}

absl::StatusOr<std::span<std::byte>> KvTransfer::Stage(int to, uint64_t id,
                                                       int64_t num_bytes) {
  if (to < last_to_ || to >= group_->size() || to == group_->rank()) {
    return InvalidArgumentF(
        "a block for rank {} from rank {} after one for rank {}, expected rising ranks "
        "below {}",
        to, group_->rank(), last_to_, group_->size());
  }
  if (num_staged_ == options_.max_messages || num_bytes < 0 ||
      num_bytes > options_.max_payload_bytes) {
    return InvalidArgumentF(
        "block {} of {} bytes to send in a step, expected {} of {} bytes at most",
        num_staged_ + 1, num_bytes, options_.max_messages, options_.max_payload_bytes);
  }
  std::byte* const at = send_.get() + staged_bytes_;
  const Header header = {.epoch = epoch_,
                         .step = step_,
                         .id = id,
                         .num_bytes = static_cast<uint64_t>(num_bytes)};
  std::memcpy(at, &header, sizeof(header));
  last_to_ = to;
  ++num_staged_;
  staged_bytes_ += kHeaderBytes + num_bytes;
  sent_bytes_ += num_bytes;
  send_counts_[static_cast<size_t>(to)] += kHeaderBytes + num_bytes;
  return std::span(at + kHeaderBytes, static_cast<size_t>(num_bytes));
}

absl::Status KvTransfer::Exchange() {
  for (std::byte* at = send_.get(); at < send_.get() + staged_bytes_;) {
    Header header = HeaderAt(at);
    header.crc = engram_store::Crc32c(
        std::span(at + kHeaderBytes, static_cast<size_t>(header.num_bytes)));
    std::memcpy(at, &header, sizeof(header));
    at += kHeaderBytes + header.num_bytes;
  }
  return group_->AllToAllV(std::span(send_.get(), static_cast<size_t>(staged_bytes_)),
                           send_counts_, std::span(recv_.get(), capacity_), recv_counts_);
}

absl::StatusOr<ReceivedPayload> KvTransfer::Take(int from, uint64_t id,
                                                 int64_t num_bytes) {
  if (from < 0 || from >= group_->size()) {
    return InvalidArgumentF("a block from rank {}, expected less than {}", from,
                            group_->size());
  }
  const auto source = static_cast<size_t>(from);
  const int64_t left = recv_counts_[source] - taken_[source];
  if (left < kHeaderBytes + num_bytes) {
    return DataLossF("{} bytes left of rank {} for a block of {} bytes and its header",
                     left, from, num_bytes);
  }
  const int64_t before =
      std::accumulate(recv_counts_.begin(), recv_counts_.begin() + from, int64_t{0});
  const std::byte* const at = recv_.get() + before + taken_[source];
  const Header header = HeaderAt(at);
  if (header.epoch != epoch_ || header.step != step_ || header.id != id ||
      header.num_bytes != static_cast<uint64_t>(num_bytes)) {
    return DataLossF(
        "rank {} sent block {} of {} bytes in epoch {} step {}, expected block {} of {} "
        "bytes in epoch {} step {}",
        from, header.id, header.num_bytes, header.epoch, header.step, id, num_bytes,
        epoch_, step_);
  }
  const std::span payload(at + kHeaderBytes, static_cast<size_t>(num_bytes));
  const uint32_t crc = engram_store::Crc32c(payload);
  if (crc != header.crc) {
    return DataLossF("block {} of rank {} has crc32c {:08x}, {:08x} was sent", id, from,
                     crc, header.crc);
  }
  taken_[source] += kHeaderBytes + num_bytes;
  return ReceivedPayload{.bytes = payload, .crc = crc};
}

absl::Status KvTransfer::Finish() const {
  for (size_t rank = 0; rank < recv_counts_.size(); ++rank) {
    if (taken_[rank] != recv_counts_[rank]) {
      return DataLossF("rank {} sent {} bytes of blocks, {} were expected", rank,
                       recv_counts_[rank], taken_[rank]);
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera::worker
