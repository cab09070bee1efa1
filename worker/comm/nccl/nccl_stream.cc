#include "worker/comm/nccl/nccl_stream.h"

#include <algorithm>
#include <string>
#include <utility>

#include "common/status.h"
#include "common/status_macros.h"
#include "worker/comm/back_off.h"
#include "worker/comm/collective_arguments.h"

namespace tessera::worker {
namespace {

using kernels::DeviceTransfer;
using kernels::DType;
using kernels::TensorView;

absl::Status CheckType(const Communicator& comm, DType type, DType activations) {
  return type == activations
             ? absl::OkStatus()
             : InvalidArgumentF("{}: all-reduce of {} on a stream, expected {}",
                                comm.name(), model::DTypeName(type),
                                model::DTypeName(activations));
}

// `bytes` of memory as values of the activation type.
TensorView ValuesOf(std::span<std::byte> bytes, DType type) {
  const auto count = static_cast<int64_t>(bytes.size() * 8 / model::DTypeBits(type));
  return {bytes.data(), type, {1, count}};
}

}  // namespace

NcclStream::NcclStream(const Communicator* comm, kernels::DeviceCollectives* device,
                       std::span<std::byte> received, const CommOptions& options,
                       Clock* clock, std::shared_ptr<GroupEnd> end)
    : comm_(*comm),
      device_(*device),
      received_(received),
      options_(options),
      clock_(clock),
      end_(std::move(end)) {
  transfers_.reserve(2 * static_cast<size_t>(device->size()));
}

absl::Status NcclStream::Check() {
  TESSERA_RETURN_IF_ERROR(end_->Check(comm_.name()));
  return WithContext(device_.PollEnqueued().status(), comm_.name());
}

void NcclStream::End(std::string_view reason) {
  end_->Set(reason);
  device_.Abort();
}

absl::Status NcclStream::Run(const absl::Status& arguments,
                             absl::FunctionRef<absl::Status()> enqueue) {
  const absl::Time start = clock_->Now();
  deadline_ = start + options_.timeout;
  absl::Status status = end_->Check(comm_.name());
  if (status.ok()) {
    status = arguments;
  }
  if (status.ok()) {
    status = enqueue();
  }
  if (!status.ok()) {
    End(std::string_view(status.message().data(), status.message().size()));
    return status;
  }
  host_time_ += clock_->Now() - start;
  return absl::OkStatus();
}

absl::Status NcclStream::AwaitEnqueued(const absl::Status& issued) {
  TESSERA_RETURN_IF_ERROR(issued);
  for (int polls = 0;; ++polls) {
    TESSERA_ASSIGN_OR_RETURN(const bool enqueued, device_.PollEnqueued());
    if (enqueued) {
      return absl::OkStatus();
    }
    TESSERA_RETURN_IF_ERROR(end_->Check(comm_.name()));
    if (clock_->Now() >= deadline_) {
      return DeadlineExceededF("{} rank {}: collective not enqueued within {}",
                               comm_.name(), rank(),
                               absl::FormatDuration(options_.timeout));
    }
    BackOff(polls, clock_);
  }
}

absl::Status NcclStream::AllReduceSum(const Place& place, TensorView x) {
  absl::Status arguments = CheckAllReduceArguments(comm_, x);
  arguments.Update(CheckType(comm_, x.dtype, place.backend->activation_dtype()));
  return Run(arguments, [&]() -> absl::Status {
    std::span<std::byte> left(
        static_cast<std::byte*>(x.data),
        model::DTypeBytes(x.dtype, static_cast<size_t>(x.num_elements())));
    while (!left.empty()) {
      const std::span<std::byte> own =
          left.first(std::min(left.size(), received_.size()));
      const std::span<std::byte> other = received_.first(own.size());
      for (int distance = 1; distance < size(); distance *= 2) {
        const int peer = rank() ^ distance;
        const DeviceTransfer both[] = {{true, own.data(), own.size(), peer},
                                       {false, other.data(), other.size(), peer}};
        TESSERA_RETURN_IF_ERROR(AwaitEnqueued(device_.ExchangeOn(*place.stream, both)));
        place.backend->Add(*place.stream, ValuesOf(other, x.dtype),
                           ValuesOf(own, x.dtype));
      }
      left = left.subspan(own.size());
    }
    return absl::OkStatus();
  });
}

absl::Status NcclStream::GatherParts(const Place& place, std::span<const std::byte> send,
                                     std::span<const int64_t> counts,
                                     std::span<std::byte> recv) {
  transfers_.clear();
  size_t offset = 0;
  for (int peer = 0; peer < size(); ++peer) {
    const auto bytes = static_cast<size_t>(counts[static_cast<size_t>(peer)]);
    const std::span<std::byte> part = recv.subspan(offset, bytes);
    offset += bytes;
    if (peer != rank()) {
      if (!send.empty()) {
        transfers_.push_back(
            {true, const_cast<std::byte*>(send.data()), send.size(), peer});
      }
      if (bytes != 0) {
        transfers_.push_back({false, part.data(), bytes, peer});
      }
    } else if (bytes != 0 && part.data() != send.data()) {
      const DType type = place.backend->activation_dtype();
      const std::span<std::byte> own(const_cast<std::byte*>(send.data()), send.size());
      place.backend->Copy(*place.stream, ValuesOf(own, type), ValuesOf(part, type));
    }
  }
  return transfers_.empty()
             ? absl::OkStatus()
             : AwaitEnqueued(device_.ExchangeOn(*place.stream, transfers_));
}

absl::Status NcclStream::AllGather(const Place& place, std::span<const std::byte> send,
                                   std::span<const int64_t> counts,
                                   std::span<std::byte> recv) {
  const absl::Status arguments =
      CheckAllGatherArguments(comm_, send.size(), counts, recv.size());
  return Run(arguments, [&]() -> absl::Status {
    if (recv.empty()) {
      return absl::OkStatus();
    }
    const bool are_equal = std::all_of(counts.begin(), counts.end(), [&](int64_t count) {
      return count == counts.front();
    });
    return are_equal ? AwaitEnqueued(device_.AllGatherOn(*place.stream, send.data(),
                                                         recv.data(), send.size()))
                     : GatherParts(place, send, counts, recv);
  });
}

absl::Status NcclStream::Exchange(kernels::Stream& stream,
                                  std::span<const DeviceTransfer> transfers) {
  return Run(absl::OkStatus(), [&]() -> absl::Status {
    return transfers.empty() ? absl::OkStatus()
                             : AwaitEnqueued(device_.ExchangeOn(stream, transfers));
  });
}

}  // namespace tessera::worker
