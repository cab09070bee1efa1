#include "worker/comm/in_process/in_process_group.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "common/status.h"
#include "common/status_macros.h"
#include "worker/comm/collective_arguments.h"
#include "worker/comm/in_process/group_barrier.h"
#include "worker/comm/tree_sum.h"

namespace tessera::worker {
namespace {

using kernels::TensorView;

enum class Op : int {
  kNone,
  kAllReduceSum,
  kAllGather,
  kAllToAllV,
  kBroadcast,
  kBarrier
};

const char* OpName(Op op) {
  switch (op) {
    case Op::kNone:
      return "nothing";
    case Op::kAllReduceSum:
      return "AllReduceSum";
    case Op::kAllGather:
      return "AllGather";
    case Op::kAllToAllV:
      return "AllToAllV";
    case Op::kBroadcast:
      return "Broadcast";
    case Op::kBarrier:
      return "Barrier";
  }
  return "unknown";
}

// What one rank brings to a collective. Written by its own thread before Enter, read by
// all ranks between Enter and Leave.
struct alignas(64) Contribution {
  Op op = Op::kNone;
  kernels::DType dtype = kernels::DType::kU8;
  int root = 0;
  void* data = nullptr;
  size_t bytes = 0;
  const int64_t* send_counts = nullptr;  // of AllToAllV
};

struct GroupState {
  GroupState(std::string_view group_name, int num_ranks, const CommOptions& group_options,
             Clock* group_clock)
      : name(group_name),
        options(group_options),
        clock(group_clock),
        barrier(num_ranks, group_clock),
        contributions(static_cast<size_t>(num_ranks)) {}

  const std::string name;
  const CommOptions options;
  Clock* const clock;
  GroupBarrier barrier;
  std::vector<Contribution> contributions;
};

// A slice starts at a multiple of a cache line, so that ranks do not write to the same
// line.
constexpr int64_t kSliceElements = 16;

class InProcessCommunicator final : public Communicator {
 public:
  InProcessCommunicator(std::shared_ptr<GroupState> state, int rank)
      : state_(std::move(state)),
        rank_(rank),
        operands_(state_->contributions.size()),
        scratch_(TreeSumScratchBytes(size())) {}

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(state_->contributions.size()); }
  std::string_view name() const override { return state_->name; }
  CommStats stats() const override { return stats_; }

  absl::Status AllReduceSum(TensorView x) override;
  absl::Status AllGather(std::span<const std::byte> send, std::span<const int64_t> counts,
                         std::span<std::byte> recv) override;
  absl::Status AllToAllV(std::span<const std::byte> send,
                         std::span<const int64_t> send_counts, std::span<std::byte> recv,
                         std::span<int64_t> recv_counts) override;
  absl::Status Broadcast(std::span<std::byte> data, int root) override;
  absl::Status Barrier() override;
  void Abort(std::string_view reason) override { state_->barrier.Kill(reason); }

 private:
  // Runs `exchange` between Enter and Leave, if all ranks bring the same op. A failed
  // exchange, like failed `arguments`, kills the group.
  template <typename Exchange>
  absl::Status Run(const absl::Status& arguments, const Contribution& own,
                   Exchange exchange);
  absl::Status Enter(Op op);
  // kInternal unless every rank called the same op with the same root and type.
  absl::Status CheckSameCall() const;
  absl::Status Dead() const;

  Contribution& at(int rank) const {
    return state_->contributions[static_cast<size_t>(rank)];
  }

  const std::shared_ptr<GroupState> state_;
  const int rank_;
  std::vector<void*> operands_;
  std::vector<std::byte> scratch_;
  CommStats stats_;
};

absl::Status InProcessCommunicator::Dead() const {
  return StatusF(absl::StatusCode::kAborted, "{}: group torn down: {}", name(),
                 state_->barrier.reason());
}

absl::Status InProcessCommunicator::Enter(Op op) {
  const absl::Duration timeout = state_->options.timeout;
  switch (state_->barrier.Enter(state_->clock->Now() + timeout)) {
    case GroupBarrier::Outcome::kMet:
      return absl::OkStatus();
    case GroupBarrier::Outcome::kTimeout:
      return DeadlineExceededF("{} rank {}: {} not joined by all {} ranks within {}",
                               name(), rank_, OpName(op), size(),
                               absl::FormatDuration(timeout));
    case GroupBarrier::Outcome::kDead:
      break;
  }
  return Dead();
}

absl::Status InProcessCommunicator::CheckSameCall() const {
  const Contribution& first = at(0);
  for (int rank = 1; rank < size(); ++rank) {
    const Contribution& other = at(rank);
    if (other.op != first.op || other.root != first.root || other.dtype != first.dtype) {
      return InternalF(
          "{}: rank 0 called {} (root {}, {}), rank {} called {} (root {}, {})", name(),
          OpName(first.op), first.root, model::DTypeName(first.dtype), rank,
          OpName(other.op), other.root, model::DTypeName(other.dtype));
    }
  }
  return absl::OkStatus();
}

template <typename Exchange>
absl::Status InProcessCommunicator::Run(const absl::Status& arguments,
                                        const Contribution& own, Exchange exchange) {
  if (state_->barrier.dead()) {
    return Dead();
  }
  if (!arguments.ok()) {
    Abort(std::string_view(arguments.message().data(), arguments.message().size()));
    return arguments;
  }
  const absl::Time start = state_->clock->Now();
  at(rank_) = own;
  TESSERA_RETURN_IF_ERROR(Enter(own.op));
  absl::Status status = CheckSameCall();
  if (status.ok()) {
    status = exchange();
  }
  if (!status.ok()) {
    Abort(std::string_view(status.message().data(), status.message().size()));
  }
  state_->barrier.Leave();
  ++stats_.calls;
  stats_.time += state_->clock->Now() - start;
  return status;
}

absl::Status InProcessCommunicator::AllReduceSum(TensorView x) {
  const size_t bytes =
      static_cast<size_t>(x.num_elements()) * model::DTypeBits(x.dtype) / 8;
  const Contribution own = {Op::kAllReduceSum, x.dtype, 0, x.data, bytes, nullptr};
  return Run(CheckAllReduceArguments(*this, x), own, [&]() -> absl::Status {
    for (int rank = 0; rank < size(); ++rank) {
      if (at(rank).bytes != bytes) {
        return InternalF("{}: rank {} reduces {} bytes, rank {} reduces {}", name(), rank,
                         at(rank).bytes, rank_, bytes);
      }
      operands_[static_cast<size_t>(rank)] = at(rank).data;
    }
    // Each rank sums one slice of every operand and writes it to all of them.
    const int64_t n = x.num_elements();
    const int64_t lines = (n + kSliceElements - 1) / kSliceElements;
    const int64_t begin = std::min(n, lines * rank_ / size() * kSliceElements);
    const int64_t end = std::min(n, lines * (rank_ + 1) / size() * kSliceElements);
    SumTreeInPlace(x.dtype, operands_, begin, end, scratch_);
    stats_.bytes += bytes;
    return absl::OkStatus();
  });
}

absl::Status InProcessCommunicator::AllGather(std::span<const std::byte> send,
                                              std::span<const int64_t> counts,
                                              std::span<std::byte> recv) {
  // Peers only read `data`; the cast is undone by their copies.
  const Contribution own = {Op::kAllGather,
                            kernels::DType::kU8,
                            0,
                            const_cast<std::byte*>(send.data()),
                            send.size(),
                            nullptr};
  const absl::Status arguments =
      CheckAllGatherArguments(*this, send.size(), counts, recv.size());
  return Run(arguments, own, [&]() -> absl::Status {
    size_t offset = 0;
    for (int rank = 0; rank < size(); ++rank) {
      const size_t count = static_cast<size_t>(counts[static_cast<size_t>(rank)]);
      if (at(rank).bytes != count) {
        return InternalF("{}: rank {} gathers {} bytes, rank {} expects {}", name(), rank,
                         at(rank).bytes, rank_, count);
      }
      std::byte* to = recv.data() + offset;
      if (count != 0 && to != at(rank).data) {
        std::memcpy(to, at(rank).data, count);
      }
      offset += count;
    }
    stats_.bytes += recv.size() - send.size();
    return absl::OkStatus();
  });
}

absl::Status InProcessCommunicator::AllToAllV(std::span<const std::byte> send,
                                              std::span<const int64_t> send_counts,
                                              std::span<std::byte> recv,
                                              std::span<int64_t> recv_counts) {
  const Contribution own = {
      Op::kAllToAllV, kernels::DType::kU8, 0, const_cast<std::byte*>(send.data()),
      send.size(),    send_counts.data()};
  const absl::Status arguments =
      CheckAllToAllArguments(*this, send.size(), send_counts, recv_counts);
  return Run(arguments, own, [&]() -> absl::Status {
    size_t filled = 0;
    for (int rank = 0; rank < size(); ++rank) {
      const Contribution& from = at(rank);
      size_t offset = 0;
      for (int before = 0; before < rank_; ++before) {
        offset += static_cast<size_t>(from.send_counts[before]);
      }
      const size_t count = static_cast<size_t>(from.send_counts[rank_]);
      if (count > recv.size() - filled) {
        return InternalF("{} rank {}: {} more bytes from rank {}, room for {} of {}",
                         name(), rank_, count, rank, recv.size() - filled, recv.size());
      }
      if (count != 0) {
        std::memcpy(recv.data() + filled,
                    static_cast<const std::byte*>(from.data) + offset, count);
      }
      recv_counts[static_cast<size_t>(rank)] = static_cast<int64_t>(count);
      filled += count;
    }
    stats_.bytes += filled;
    stats_.messages += static_cast<uint64_t>(size() - 1);
    return absl::OkStatus();
  });
}

absl::Status InProcessCommunicator::Broadcast(std::span<std::byte> data, int root) {
  const Contribution own = {Op::kBroadcast, kernels::DType::kU8, root,
                            data.data(),    data.size(),         nullptr};
  return Run(CheckRoot(*this, root), own, [&]() -> absl::Status {
    const Contribution& from = at(root);
    if (from.bytes != data.size()) {
      return InternalF("{}: root {} broadcasts {} bytes, rank {} expects {}", name(),
                       root, from.bytes, rank_, data.size());
    }
    if (rank_ != root && !data.empty()) {
      std::memcpy(data.data(), from.data, data.size());
      stats_.bytes += data.size();
    }
    return absl::OkStatus();
  });
}

absl::Status InProcessCommunicator::Barrier() {
  Contribution own;
  own.op = Op::kBarrier;
  return Run(absl::OkStatus(), own, [] { return absl::OkStatus(); });
}

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<Communicator>>> CreateInProcessGroup(
    std::string_view name, int size, const CommOptions& options, Clock* clock) {
  if (size < 1 || size > kMaxInProcessRanks) {
    return InvalidArgumentF("{}: {} in-process ranks, expected 1 to {}", name, size,
                            kMaxInProcessRanks);
  }
  const auto state = std::make_shared<GroupState>(name, size, options, clock);
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (int rank = 0; rank < size; ++rank) {
    ranks.push_back(std::make_unique<InProcessCommunicator>(state, rank));
  }
  return ranks;
}

}  // namespace tessera::worker
