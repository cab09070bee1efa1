#include "worker/comm/mpi/mpi_communicator.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"

#include "common/mutex.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "worker/comm/collective_arguments.h"
#include "worker/comm/mpi/mpi_status.h"
#include "worker/comm/mpi/mpi_transfers.h"
#include "worker/comm/tree_sum.h"

namespace tessera::worker {
namespace {

using kernels::TensorView;

// One tag per op, so that ranks that call different ops never take each other's bytes:
// they run into the deadline instead.
enum Tag : int {
  kAllReduceTag = 1,
  kAllGatherTag,
  kAllToAllTag,
  kBroadcastTag,
  kBarrierTag,
  kDeathTag,
};

// An all-reduce works through its tensor in pieces of this size. 1 MiB is far beyond the
// size at which bandwidth dominates a message (~64 KiB in shared memory) and stays inside
// an L2 cache.
constexpr size_t kScratchBytes = 1 << 20;

// Waiting: first by polling alone, if every rank has a core; then by yielding, so that
// the ranks that share it can run; past about a millisecond the peer is computing, and
// polling would take its cores.
constexpr int kSpinPolls = 200;
constexpr int kYieldPolls = 1000;
constexpr int kShortSleepPolls = kYieldPolls + 200;
constexpr absl::Duration kShortSleep = absl::Microseconds(50);
constexpr absl::Duration kLongSleep = absl::Microseconds(500);
// Deadline and death notes are looked at every so many polls.
constexpr int kPollsPerCheck = 16;

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(std::string_view name, MPI_Comm comm, int rank, int size,
                  const CommOptions& options, Clock* clock, std::shared_ptr<MpiJob> job)
      : name_(name),
        comm_(comm),
        rank_(rank),
        size_(size),
        options_(options),
        clock_(clock),
        job_(std::move(job)),
        may_spin_(static_cast<unsigned>(size) <= std::thread::hardware_concurrency()),
        transfers_(comm, 2 * size),
        messages_(static_cast<size_t>(size), MPI_MESSAGE_NULL),
        scratch_(kScratchBytes) {}

  ~MpiCommunicator() override {
    if (!dead_ && !aborted_.load()) {
      static_cast<void>(MPI_Comm_free(&comm_));
    }
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string_view name() const override { return name_; }
  CommStats stats() const override { return stats_; }

  absl::Status AllReduceSum(TensorView x) override;
  absl::Status AllGather(std::span<const std::byte> send, std::span<const int64_t> counts,
                         std::span<std::byte> recv) override;
  absl::Status AllToAllV(std::span<const std::byte> send,
                         std::span<const int64_t> send_counts, std::span<std::byte> recv,
                         std::span<int64_t> recv_counts) override;
  absl::Status Broadcast(std::span<std::byte> data, int root) override;
  absl::Status Barrier() override;
  void Abort(std::string_view reason) override;

 private:
  // Runs `exchange` unless the group is dead or the arguments are bad; an error of either
  // kills it.
  template <typename Exchange>
  absl::Status Run(const absl::Status& arguments, Exchange exchange);
  // Calls `step` until it says true, an error, the deadline or death.
  template <typename Step>
  absl::Status Poll(Step step);
  absl::Status AwaitTransfers() {
    return Poll([this] { return transfers_.Test(); });
  }
  absl::Status CheckAlive();
  void BackOff(int num_polls);
  absl::Status Dead() const;
  // Tears this rank down and tells the others. The caller has the job.
  void Die(const absl::Status& status);
  void TellPeers();

  absl::Status ReducePiece(kernels::DType dtype, std::span<std::byte> piece,
                           int64_t num_elements);
  absl::StatusOr<bool> ProbeParts(std::span<int64_t> recv_counts);
  absl::Status ReceiveParts(std::span<std::byte> recv,
                            std::span<const int64_t> recv_counts);

  const std::string name_;
  MPI_Comm comm_;
  const int rank_;
  const int size_;
  const CommOptions options_;
  Clock* const clock_;
  const std::shared_ptr<MpiJob> job_;
  const bool may_spin_;

  MpiTransfers transfers_;
  std::vector<MPI_Message> messages_;  // matched and not yet received, by source
  std::vector<std::byte> scratch_;
  absl::Time deadline_;      // of the call in progress
  bool dead_ = false;        // a call has failed
  bool peers_told_ = false;  // guarded by job_->in_use
  CommStats stats_;

  std::atomic<bool> aborted_ = false;  // set after the reason
  mutable Mutex mutex_;
  std::string reason_ ABSL_GUARDED_BY(mutex_);
};

absl::Status MpiCommunicator::Dead() const {
  MutexLock lock(&mutex_);
  return StatusF(absl::StatusCode::kAborted, "{}: group torn down: {}", name_, reason_);
}

void MpiCommunicator::Abort(std::string_view reason) {
  job_->faulted.store(true);
  {
    MutexLock lock(&mutex_);
    if (!aborted_.load()) {
      reason_.assign(reason);
      aborted_.store(true);
    }
  }
  // If the step thread is in a call of this group, it notices and tells the peers itself.
  if (!job_->in_use.exchange(true)) {
    TellPeers();
    job_->in_use.store(false);
  }
}

void MpiCommunicator::TellPeers() {
  if (peers_told_) {
    return;
  }
  peers_told_ = true;
  // A note without content is copied by MPI at once, so its request need not be kept.
  // Whether it arrives is not known: peers that do not get it run into their deadline.
  for (int peer = 0; peer < size_; ++peer) {
    MPI_Request request = MPI_REQUEST_NULL;
    if (peer != rank_ && MPI_Isend(nullptr, 0, MPI_BYTE, peer, kDeathTag, comm_,
                                   &request) == MPI_SUCCESS) {
      static_cast<void>(MPI_Request_free(&request));
    }
  }
}

void MpiCommunicator::Die(const absl::Status& status) {
  Abort(std::string_view(status.message().data(), status.message().size()));
  dead_ = true;
  transfers_.Abandon();
  TellPeers();
}

absl::Status MpiCommunicator::CheckAlive() {
  if (aborted_.load()) {
    return Dead();
  }
  int noted = 0;
  MPI_Status status;
  TESSERA_RETURN_IF_ERROR(MpiStatus(
      MPI_Iprobe(MPI_ANY_SOURCE, kDeathTag, comm_, &noted, &status), "MPI_Iprobe"));
  if (noted != 0) {
    return StatusF(absl::StatusCode::kAborted, "{}: rank {} left the group", name_,
                   status.MPI_SOURCE);
  }
  if (clock_->Now() >= deadline_) {
    return DeadlineExceededF(
        "{} rank {}: collective not finished by all {} ranks within {}", name_, rank_,
        size_, absl::FormatDuration(options_.timeout));
  }
  return absl::OkStatus();
}

void MpiCommunicator::BackOff(int num_polls) {
  if (may_spin_ && num_polls < kSpinPolls) {
    return;
  }
  if (num_polls < kYieldPolls) {
    std::this_thread::yield();
  } else {
    clock_->Sleep(num_polls < kShortSleepPolls ? kShortSleep : kLongSleep);
  }
}

template <typename Step>
absl::Status MpiCommunicator::Poll(Step step) {
  for (int polls = 1;; polls = std::min(polls + 1, 1 << 20)) {
    TESSERA_ASSIGN_OR_RETURN(const bool done, step());
    if (done) {
      return absl::OkStatus();
    }
    // Once the waits are sleeps, every poll is worth a check.
    if (polls % kPollsPerCheck == 0 || polls > kYieldPolls) {
      TESSERA_RETURN_IF_ERROR(CheckAlive());
    }
    BackOff(polls);
  }
}

template <typename Exchange>
absl::Status MpiCommunicator::Run(const absl::Status& arguments, Exchange exchange) {
  if (dead_) {
    return Dead();
  }
  const absl::Time start = clock_->Now();
  deadline_ = start + options_.timeout;
  while (job_->in_use.exchange(true)) {
    std::this_thread::yield();  // an Abort is sending its notes: some microseconds
  }
  const auto release = absl::MakeCleanup([this] { job_->in_use.store(false); });
  // A peer that gave up may have sent its part before: its note comes first.
  absl::Status status = CheckAlive();
  if (status.ok()) {
    status = arguments;
  }
  if (status.ok()) {
    status = exchange();
  }
  if (!status.ok()) {
    Die(status);
    return status;
  }
  ++stats_.calls;
  stats_.time += clock_->Now() - start;
  return absl::OkStatus();
}

// Recursive doubling: at distance 1, 2, 4… neighbours exchange their sums and add lower +
// higher, so that after each round a rank holds an inner node of the tree of tree_sum.h.
absl::Status MpiCommunicator::ReducePiece(kernels::DType dtype,
                                          std::span<std::byte> piece,
                                          int64_t num_elements) {
  const std::span<std::byte> other = std::span(scratch_).first(piece.size());
  for (int distance = 1; distance < size_; distance *= 2) {
    const int peer = rank_ ^ distance;
    TESSERA_RETURN_IF_ERROR(transfers_.Receive(other, peer, kAllReduceTag));
    TESSERA_RETURN_IF_ERROR(transfers_.Send(piece, peer, kAllReduceTag));
    TESSERA_RETURN_IF_ERROR(AwaitTransfers());
    const std::byte* lower = peer < rank_ ? other.data() : piece.data();
    const std::byte* higher = peer < rank_ ? piece.data() : other.data();
    AddPair(dtype, lower, higher, piece.data(), num_elements);
  }
  return absl::OkStatus();
}

absl::Status MpiCommunicator::AllReduceSum(TensorView x) {
  return Run(CheckAllReduceArguments(*this, x), [&]() -> absl::Status {
    const size_t element_bytes = model::DTypeBits(x.dtype) / 8;
    auto* data = static_cast<std::byte*>(x.data);
    size_t left = static_cast<size_t>(x.num_elements()) * element_bytes;
    stats_.bytes += left;
    while (left != 0) {
      const size_t bytes = std::min(left, kScratchBytes);
      TESSERA_RETURN_IF_ERROR(ReducePiece(x.dtype, {data, bytes},
                                          static_cast<int64_t>(bytes / element_bytes)));
      data += bytes;
      left -= bytes;
    }
    return absl::OkStatus();
  });
}

absl::Status MpiCommunicator::AllGather(std::span<const std::byte> send,
                                        std::span<const int64_t> counts,
                                        std::span<std::byte> recv) {
  const absl::Status arguments =
      CheckAllGatherArguments(*this, send.size(), counts, recv.size());
  return Run(arguments, [&]() -> absl::Status {
    size_t offset = 0;
    for (int peer = 0; peer < size_; ++peer) {
      const auto count = static_cast<size_t>(counts[static_cast<size_t>(peer)]);
      const std::span<std::byte> part = recv.subspan(offset, count);
      offset += count;
      if (peer == rank_) {
        if (count != 0 && part.data() != send.data()) {
          std::memcpy(part.data(), send.data(), count);
        }
        continue;
      }
      TESSERA_RETURN_IF_ERROR(transfers_.Receive(part, peer, kAllGatherTag));
      TESSERA_RETURN_IF_ERROR(transfers_.Send(send, peer, kAllGatherTag));
    }
    stats_.bytes += recv.size() - send.size();
    return AwaitTransfers();
  });
}

// True when the message of every peer has been matched and its length is known.
absl::StatusOr<bool> MpiCommunicator::ProbeParts(std::span<int64_t> recv_counts) {
  bool all = true;
  for (int peer = 0; peer < size_; ++peer) {
    const auto i = static_cast<size_t>(peer);
    if (peer == rank_ || messages_[i] != MPI_MESSAGE_NULL) {
      continue;
    }
    int found = 0;
    int bytes = 0;
    MPI_Status status;
    TESSERA_RETURN_IF_ERROR(
        MpiStatus(MPI_Improbe(peer, kAllToAllTag, comm_, &found, &messages_[i], &status),
                  "MPI_Improbe"));
    if (found == 0) {
      messages_[i] = MPI_MESSAGE_NULL;
      all = false;
      continue;
    }
    TESSERA_RETURN_IF_ERROR(
        MpiStatus(MPI_Get_count(&status, MPI_BYTE, &bytes), "MPI_Get_count"));
    recv_counts[i] = bytes;
  }
  return all;
}

absl::Status MpiCommunicator::ReceiveParts(std::span<std::byte> recv,
                                           std::span<const int64_t> recv_counts) {
  size_t offset = 0;
  for (int peer = 0; peer < size_; ++peer) {
    const auto i = static_cast<size_t>(peer);
    const auto count = static_cast<size_t>(recv_counts[i]);
    if (count > recv.size() - offset) {
      return InternalF("{} rank {}: {} more bytes from rank {}, room for {} of {}", name_,
                       rank_, count, peer, recv.size() - offset, recv.size());
    }
    if (peer != rank_) {
      TESSERA_RETURN_IF_ERROR(
          transfers_.ReceiveMatched(recv.subspan(offset, count), &messages_[i]));
    }
    offset += count;
  }
  stats_.bytes += offset;
  return absl::OkStatus();
}

absl::Status MpiCommunicator::AllToAllV(std::span<const std::byte> send,
                                        std::span<const int64_t> send_counts,
                                        std::span<std::byte> recv,
                                        std::span<int64_t> recv_counts) {
  const absl::Status arguments =
      CheckAllToAllArguments(*this, send.size(), send_counts, recv_counts);
  return Run(arguments, [&]() -> absl::Status {
    std::span<const std::byte> own_part;
    size_t offset = 0;
    for (int peer = 0; peer < size_; ++peer) {
      const auto count = static_cast<size_t>(send_counts[static_cast<size_t>(peer)]);
      const std::span<const std::byte> part = send.subspan(offset, count);
      offset += count;
      if (peer == rank_) {
        own_part = part;
      } else {
        TESSERA_RETURN_IF_ERROR(transfers_.Send(part, peer, kAllToAllTag));
        ++stats_.messages;
      }
    }
    // Probing tells the lengths, so no round of counts goes ahead of the data. Small
    // messages are here already then; of large ones only the announcement is.
    recv_counts[static_cast<size_t>(rank_)] = static_cast<int64_t>(own_part.size());
    TESSERA_RETURN_IF_ERROR(Poll([&] { return ProbeParts(recv_counts); }));
    TESSERA_RETURN_IF_ERROR(ReceiveParts(recv, recv_counts));
    if (!own_part.empty()) {
      size_t own_offset = 0;
      for (int peer = 0; peer < rank_; ++peer) {
        own_offset += static_cast<size_t>(recv_counts[static_cast<size_t>(peer)]);
      }
      std::memcpy(recv.data() + own_offset, own_part.data(), own_part.size());
    }
    return AwaitTransfers();
  });
}

absl::Status MpiCommunicator::Broadcast(std::span<std::byte> data, int root) {
  return Run(CheckRoot(*this, root), [&]() -> absl::Status {
    if (rank_ != root) {
      TESSERA_RETURN_IF_ERROR(transfers_.Receive(data, root, kBroadcastTag));
      stats_.bytes += data.size();
      return AwaitTransfers();
    }
    for (int peer = 0; peer < size_; ++peer) {
      if (peer != root) {
        TESSERA_RETURN_IF_ERROR(transfers_.Send(data, peer, kBroadcastTag));
      }
    }
    return AwaitTransfers();
  });
}

// Dissemination: after round i each rank has heard, directly or not, of 2^(i+1) ranks.
absl::Status MpiCommunicator::Barrier() {
  return Run(absl::OkStatus(), [&]() -> absl::Status {
    for (int distance = 1; distance < size_; distance *= 2) {
      TESSERA_RETURN_IF_ERROR(
          transfers_.Receive({}, (rank_ - distance + size_) % size_, kBarrierTag));
      TESSERA_RETURN_IF_ERROR(
          transfers_.Send({}, (rank_ + distance) % size_, kBarrierTag));
      TESSERA_RETURN_IF_ERROR(AwaitTransfers());
    }
    return absl::OkStatus();
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> MakeMpiCommunicator(
    std::string_view name, MPI_Comm comm, const CommOptions& options, Clock* clock,
    std::shared_ptr<MpiJob> job) {
  int rank = 0;
  int size = 0;
  TESSERA_RETURN_IF_ERROR(MpiStatus(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank"));
  TESSERA_RETURN_IF_ERROR(MpiStatus(MPI_Comm_size(comm, &size), "MPI_Comm_size"));
  return std::make_unique<MpiCommunicator>(name, comm, rank, size, options, clock,
                                           std::move(job));
}

}  // namespace tessera::worker
