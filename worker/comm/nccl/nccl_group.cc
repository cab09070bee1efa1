#include "worker/comm/nccl/nccl_group.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "common/status.h"
#include "common/status_macros.h"
#include "worker/comm/back_off.h"
#include "worker/comm/collective_arguments.h"
#include "worker/comm/nccl/group_end.h"
#include "worker/comm/nccl/nccl_stream.h"
#include "worker/comm/tree_sum.h"

namespace tessera::worker {
namespace {

using kernels::DeviceCollectives;
using kernels::DeviceTransfer;
using kernels::TensorView;

// What a call moves at a time, each way. 1 MiB is far beyond the size at which bandwidth
// dominates a message, and 64 ranks still get 16 KiB each.
constexpr size_t kStagingBytes = 1 << 20;

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(std::string_view name, std::unique_ptr<DeviceCollectives> device,
                   kernels::DeviceBuffer staging, const CommOptions& options,
                   Clock* clock, std::shared_ptr<GroupEnd> end)
      : name_(name),
        options_(options),
        clock_(clock),
        end_(std::move(end)),
        device_(std::move(device)),
        staging_(std::move(staging)),
        other_(kStagingBytes),
        on_stream_(this, device_.get(), {received(), kStagingBytes}, options, clock,
                   end_) {}

  int rank() const override { return device_->rank(); }
  int size() const override { return device_->size(); }
  std::string_view name() const override { return name_; }
  CommStats stats() const override { return stats_; }
  DeviceCommunicator* on_stream() override { return &on_stream_; }

  absl::Status AllReduceSum(TensorView x) override;
  absl::Status AllGather(std::span<const std::byte> send, std::span<const int64_t> counts,
                         std::span<std::byte> recv) override;
  absl::Status AllToAllV(std::span<const std::byte> send,
                         std::span<const int64_t> send_counts, std::span<std::byte> recv,
                         std::span<int64_t> recv_counts) override;
  absl::Status Broadcast(std::span<std::byte> data, int root) override;
  absl::Status Barrier() override;
  void Abort(std::string_view reason) override { end_->Set(reason); }

 private:
  // Runs `exchange` unless the group is dead or the arguments are bad; an error of either
  // kills it.
  template <typename Exchange>
  absl::Status Run(const absl::Status& arguments, Exchange exchange);
  absl::Status CheckAlive() const;
  // Until what was enqueued is done.
  absl::Status Await();

  absl::Status ReducePiece(kernels::DType dtype, std::span<std::byte> piece);
  // Each rank's part of `counts` bytes to and from it, `piece` bytes at a time. The parts
  // lie one after the other; with `same_part` every rank gets all of `send`.
  absl::Status ExchangeParts(std::span<const std::byte> send,
                             std::span<const int64_t> send_counts, bool same_part,
                             std::span<std::byte> recv,
                             std::span<const int64_t> recv_counts);
  absl::Status ExchangeCounts(std::span<const int64_t> send_counts,
                              std::span<int64_t> recv_counts);

  std::byte* sent() const { return static_cast<std::byte*>(staging_.data()); }
  std::byte* received() const { return sent() + kStagingBytes; }

  const std::string name_;
  const CommOptions options_;
  Clock* const clock_;
  const std::shared_ptr<GroupEnd> end_;
  const std::unique_ptr<DeviceCollectives> device_;
  const kernels::DeviceBuffer staging_;  // what is sent, then what comes
  std::vector<std::byte> other_;         // an operand of the tree
  absl::Time deadline_;                  // of the call in progress
  CommStats stats_;
  NcclStream on_stream_;
};

absl::Status NcclCommunicator::CheckAlive() const {
  TESSERA_RETURN_IF_ERROR(end_->Check(name_));
  if (clock_->Now() >= deadline_) {
    return DeadlineExceededF(
        "{} rank {}: collective not finished by all {} ranks within {}", name_, rank(),
        size(), absl::FormatDuration(options_.timeout));
  }
  return absl::OkStatus();
}

absl::Status NcclCommunicator::Await() {
  for (int polls = 0;; ++polls) {
    // In this order: a peer that was here with us may have ended the group since, and
    // what is done then is done for all.
    const absl::Status alive = CheckAlive();
    TESSERA_ASSIGN_OR_RETURN(const bool done, device_->Poll());
    if (done) {
      return absl::OkStatus();
    }
    TESSERA_RETURN_IF_ERROR(alive);
    BackOff(polls, clock_);
  }
}

template <typename Exchange>
absl::Status NcclCommunicator::Run(const absl::Status& arguments, Exchange exchange) {
  const absl::Time start = clock_->Now();
  deadline_ = start + options_.timeout;
  absl::Status status = CheckAlive();
  if (status.ok()) {
    status = arguments;
  }
  if (status.ok()) {
    status = exchange();
  }
  if (!status.ok()) {
    end_->Set(std::string_view(status.message().data(), status.message().size()));
    device_->Abort();
    return status;
  }
  ++stats_.calls;
  stats_.time += clock_->Now() - start;
  return absl::OkStatus();
}

// At distance 1, 2, 4… neighbours exchange their sums and add lower + higher, so that
// after each round a rank holds an inner node of the tree of tree_sum.h.
absl::Status NcclCommunicator::ReducePiece(kernels::DType dtype,
                                           std::span<std::byte> piece) {
  const std::span<std::byte> other = std::span(other_).first(piece.size());
  const auto num_elements =
      static_cast<int64_t>(piece.size() * 8 / model::DTypeBits(dtype));
  for (int distance = 1; distance < size(); distance *= 2) {
    const int peer = rank() ^ distance;
    TESSERA_RETURN_IF_ERROR(device_->CopyIn(piece, sent()));
    const DeviceTransfer both[] = {{true, sent(), piece.size(), peer},
                                   {false, received(), piece.size(), peer}};
    TESSERA_RETURN_IF_ERROR(device_->Exchange(both));
    TESSERA_RETURN_IF_ERROR(Await());
    TESSERA_RETURN_IF_ERROR(device_->CopyOut(received(), other));
    const std::byte* lower = peer < rank() ? other.data() : piece.data();
    const std::byte* higher = peer < rank() ? piece.data() : other.data();
    AddPair(dtype, lower, higher, piece.data(), num_elements);
  }
  return absl::OkStatus();
}

absl::Status NcclCommunicator::AllReduceSum(TensorView x) {
  return Run(CheckAllReduceArguments(*this, x), [&]() -> absl::Status {
    std::span<std::byte> left(
        static_cast<std::byte*>(x.data),
        model::DTypeBytes(x.dtype, static_cast<size_t>(x.num_elements())));
    stats_.bytes += left.size();
    while (!left.empty()) {
      const size_t bytes = std::min(left.size(), kStagingBytes);
      TESSERA_RETURN_IF_ERROR(ReducePiece(x.dtype, left.first(bytes)));
      left = left.subspan(bytes);
    }
    return absl::OkStatus();
  });
}

absl::Status NcclCommunicator::ExchangeParts(std::span<const std::byte> send,
                                             std::span<const int64_t> send_counts,
                                             bool same_part, std::span<std::byte> recv,
                                             std::span<const int64_t> recv_counts) {
  const size_t piece = kStagingBytes / static_cast<size_t>(size());
  std::vector<DeviceTransfer> transfers;
  for (size_t done = 0;; done += piece) {
    transfers.clear();
    size_t send_offset = 0;
    for (int peer = 0; peer < size(); ++peer) {
      const auto i = static_cast<size_t>(peer);
      const auto to = static_cast<size_t>(send_counts[i]);
      if (peer != rank() && to > done) {
        const auto part = send.subspan(send_offset + done, std::min(piece, to - done));
        TESSERA_RETURN_IF_ERROR(device_->CopyIn(part, sent() + i * piece));
        transfers.push_back({true, sent() + i * piece, part.size(), peer});
      }
      send_offset += same_part ? 0 : to;
      const auto from = static_cast<size_t>(recv_counts[i]);
      if (peer != rank() && from > done) {
        transfers.push_back(
            {false, received() + i * piece, std::min(piece, from - done), peer});
      }
    }
    if (transfers.empty()) {
      return absl::OkStatus();
    }
    TESSERA_RETURN_IF_ERROR(device_->Exchange(transfers));
    TESSERA_RETURN_IF_ERROR(Await());
    size_t recv_offset = 0;
    for (int peer = 0; peer < size(); ++peer) {
      const auto i = static_cast<size_t>(peer);
      const auto from = static_cast<size_t>(recv_counts[i]);
      if (peer != rank() && from > done) {
        TESSERA_RETURN_IF_ERROR(device_->CopyOut(
            received() + i * piece,
            recv.subspan(recv_offset + done, std::min(piece, from - done))));
      }
      recv_offset += from;
    }
  }
}

absl::Status NcclCommunicator::AllGather(std::span<const std::byte> send,
                                         std::span<const int64_t> counts,
                                         std::span<std::byte> recv) {
  const absl::Status arguments =
      CheckAllGatherArguments(*this, send.size(), counts, recv.size());
  return Run(arguments, [&]() -> absl::Status {
    size_t offset = 0;
    for (int peer = 0; peer < rank(); ++peer) {
      offset += static_cast<size_t>(counts[static_cast<size_t>(peer)]);
    }
    if (!send.empty() && recv.data() + offset != send.data()) {
      std::memcpy(recv.data() + offset, send.data(), send.size());
    }
    stats_.bytes += recv.size() - send.size();
    const std::vector<int64_t> own(counts.size(), static_cast<int64_t>(send.size()));
    return ExchangeParts(send, own, true, recv, counts);
  });
}

// The lengths of the parts, rank by rank: what a transport that can probe need not send.
absl::Status NcclCommunicator::ExchangeCounts(std::span<const int64_t> send_counts,
                                              std::span<int64_t> recv_counts) {
  const std::vector<int64_t> each(send_counts.size(), sizeof(int64_t));
  recv_counts[static_cast<size_t>(rank())] = send_counts[static_cast<size_t>(rank())];
  return ExchangeParts(std::as_bytes(send_counts), each, false,
                       std::as_writable_bytes(recv_counts), each);
}

absl::Status NcclCommunicator::AllToAllV(std::span<const std::byte> send,
                                         std::span<const int64_t> send_counts,
                                         std::span<std::byte> recv,
                                         std::span<int64_t> recv_counts) {
  const absl::Status arguments =
      CheckAllToAllArguments(*this, send.size(), send_counts, recv_counts);
  return Run(arguments, [&]() -> absl::Status {
    TESSERA_RETURN_IF_ERROR(ExchangeCounts(send_counts, recv_counts));
    size_t filled = 0;
    size_t own_sent = 0;
    size_t own_received = 0;
    for (int peer = 0; peer < size(); ++peer) {
      const auto i = static_cast<size_t>(peer);
      if (peer < rank()) {
        own_sent += static_cast<size_t>(send_counts[i]);
        own_received += static_cast<size_t>(recv_counts[i]);
      }
      const auto count = static_cast<size_t>(recv_counts[i]);
      if (count > recv.size() - filled) {
        return InternalF("{} rank {}: {} more bytes from rank {}, room for {} of {}",
                         name_, rank(), count, peer, recv.size() - filled, recv.size());
      }
      filled += count;
    }
    const auto own = static_cast<size_t>(send_counts[static_cast<size_t>(rank())]);
    if (own != 0) {
      std::memcpy(recv.data() + own_received, send.data() + own_sent, own);
    }
    stats_.bytes += filled;
    stats_.messages += static_cast<uint64_t>(size() - 1);
    return ExchangeParts(send, send_counts, false, recv, recv_counts);
  });
}

absl::Status NcclCommunicator::Broadcast(std::span<std::byte> data, int root) {
  return Run(CheckRoot(*this, root), [&]() -> absl::Status {
    for (size_t done = 0; done < data.size(); done += kStagingBytes) {
      const std::span<std::byte> piece =
          data.subspan(done, std::min(kStagingBytes, data.size() - done));
      if (rank() == root) {
        TESSERA_RETURN_IF_ERROR(device_->CopyIn(piece, sent()));
      }
      TESSERA_RETURN_IF_ERROR(device_->Broadcast(sent(), piece.size(), root));
      TESSERA_RETURN_IF_ERROR(Await());
      if (rank() != root) {
        TESSERA_RETURN_IF_ERROR(device_->CopyOut(sent(), piece));
      }
    }
    stats_.bytes += rank() != root ? data.size() : 0;
    return absl::OkStatus();
  });
}

// NCCL has none: every rank gathers what call each of them is at, which must be the same.
absl::Status NcclCommunicator::Barrier() {
  return Run(absl::OkStatus(), [&]() -> absl::Status {
    const uint64_t own = stats_.calls;
    std::vector<uint64_t> calls(static_cast<size_t>(size()));
    TESSERA_RETURN_IF_ERROR(device_->CopyIn(std::as_bytes(std::span(&own, 1)), sent()));
    TESSERA_RETURN_IF_ERROR(device_->AllGather(sent(), received(), sizeof(own)));
    TESSERA_RETURN_IF_ERROR(Await());
    TESSERA_RETURN_IF_ERROR(
        device_->CopyOut(received(), std::as_writable_bytes(std::span(calls))));
    for (size_t peer = 0; peer < calls.size(); ++peer) {
      if (calls[peer] != own) {
        return InternalF("{}: rank {} is at call {}, rank {} at call {}", name_, rank(),
                         own, peer, calls[peer]);
      }
    }
    return absl::OkStatus();
  });
}

// All at once: a rank's communicator is formed when every other's is.
absl::Status AwaitFormed(std::string_view name,
                         std::span<const std::unique_ptr<DeviceCollectives>> ranks,
                         const CommOptions& options, Clock* clock) {
  const absl::Duration timeout = std::max(options.timeout, kFormationTimeout);
  const absl::Time deadline = clock->Now() + timeout;
  for (int polls = 0;; ++polls) {
    size_t num_formed = 0;
    for (const auto& rank : ranks) {
      TESSERA_ASSIGN_OR_RETURN(const bool formed, rank->Poll());
      num_formed += formed ? 1 : 0;
    }
    if (num_formed == ranks.size()) {
      return absl::OkStatus();
    }
    if (clock->Now() >= deadline) {
      return DeadlineExceededF("{}: group of {} ranks not formed within {}", name,
                               ranks.front()->size(), absl::FormatDuration(timeout));
    }
    BackOff(polls, clock);
  }
}

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> CreateNcclGroup(
    std::string_view name, std::vector<std::unique_ptr<DeviceCollectives>> ranks,
    const CommOptions& options, Clock* clock) {
  // Their destructors abort what is not used.
  TESSERA_RETURN_IF_ERROR(AwaitFormed(name, ranks, options, clock));
  const auto end = std::make_shared<GroupEnd>();
  std::vector<std::unique_ptr<Communicator>> group;
  for (std::unique_ptr<DeviceCollectives>& rank : ranks) {
    TESSERA_ASSIGN_OR_RETURN(kernels::DeviceBuffer staging,
                             rank->Allocate(2 * kStagingBytes));
    group.push_back(std::make_unique<NcclCommunicator>(
        name, std::move(rank), std::move(staging), options, clock, end));
  }
  return group;
}

}  // namespace tessera::worker
