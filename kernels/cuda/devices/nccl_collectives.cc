#include "kernels/cuda/devices/nccl_collectives.h"

#include <algorithm>
#include <utility>

#include "common/status.h"
#include "common/status_macros.h"
#include "kernels/cuda/backend_stream.h"

namespace tessera::kernels::cuda {
namespace {

class NcclCollectives final : public DeviceCollectives {
 public:
  NcclCollectives(std::shared_ptr<GpuMachine> machine, std::unique_ptr<GpuStream> stream,
                  std::unique_ptr<GpuNcclComm> comm, int device)
      : machine_(std::move(machine)),
        device_(device),
        stream_(std::move(stream)),
        comm_(std::move(comm)),
        done_(machine_) {}

  // Destroying a communicator waits for its peers (NCCL, ncclCommDestroy, inside a node);
  // aborting it does not, and what was finished stays so.
  ~NcclCollectives() override { Abort(); }

  int rank() const override { return comm_->rank(); }
  int size() const override { return comm_->size(); }

  absl::StatusOr<bool> Poll() override {
    // The state comes first, for what has been reached was done, whatever became of a
    // peer afterwards: one that is gone now had come before, or its part never will.
    TESSERA_ASSIGN_OR_RETURN(const NcclState state, comm_->GetAsyncError());
    if (!recorded_ && (issued_ || state == NcclState::kSuccess)) {
      TESSERA_RETURN_IF_ERROR(Record());
    }
    if (recorded_) {
      TESSERA_ASSIGN_OR_RETURN(const bool done, done_.Query());
      if (done) {
        return true;
      }
    }
    if (state == NcclState::kRemoteError) {
      return PeerLeft();
    }
    return false;
  }

  absl::StatusOr<DeviceBuffer> Allocate(size_t bytes) override {
    TESSERA_ASSIGN_OR_RETURN(void* const memory,
                             machine_->Malloc(device_, std::max<size_t>(bytes, 1)));
    DeviceBuffer buffer(memory, bytes, [machine = machine_](void* data) {
      static_cast<void>(machine->Free(data));  // its own: a failure is an operation's
    });
    if (bytes > 0) {
      TESSERA_RETURN_IF_ERROR(stream_->MemsetAsync(memory, 0, bytes));
      TESSERA_RETURN_IF_ERROR(stream_->Synchronize());
    }
    return buffer;
  }
  absl::Status CopyIn(std::span<const std::byte> host, void* device) override {
    return host.empty() ? absl::OkStatus()
                        : stream_->MemcpyAsync(device, host.data(), host.size());
  }
  absl::Status CopyOut(const void* device, std::span<std::byte> host) override {
    TESSERA_RETURN_IF_ERROR(host.empty()
                                ? absl::OkStatus()
                                : stream_->MemcpyAsync(host.data(), device, host.size()));
    return stream_->Synchronize();  // managed memory is written when its turn comes
  }

  absl::Status Exchange(std::span<const DeviceTransfer> transfers) override {
    return Note(Transfer(transfers, *stream_));
  }
  absl::Status AllGather(const void* send, void* recv, size_t bytes) override {
    return Note(comm_->AllGather(send, recv, bytes, kBytes, *stream_));
  }
  absl::Status Broadcast(void* data, size_t bytes, int root) override {
    return Note(comm_->Broadcast(data, data, bytes, kBytes, root, *stream_));
  }

  absl::Status ExchangeOn(Stream& stream,
                          std::span<const DeviceTransfer> transfers) override {
    return Transfer(transfers, GpuStreamOf(stream)).status();
  }
  absl::Status AllGatherOn(Stream& stream, const void* send, void* recv,
                           size_t bytes) override {
    return comm_->AllGather(send, recv, bytes, kBytes, GpuStreamOf(stream)).status();
  }
  absl::StatusOr<bool> PollEnqueued() override {
    TESSERA_ASSIGN_OR_RETURN(const NcclState state, comm_->GetAsyncError());
    if (state == NcclState::kRemoteError) {
      return PeerLeft();
    }
    return state == NcclState::kSuccess;
  }

  void Abort() override {
    if (!aborted_) {
      aborted_ = true;
      comm_->Abort();
    }
  }

 private:
  static constexpr auto kBytes = model::DType::kU8;

  static absl::Status PeerLeft() {
    return absl::AbortedError("a rank left the communicator");
  }
  absl::StatusOr<NcclState> Transfer(std::span<const DeviceTransfer> transfers,
                                     GpuStream& stream) {
    TESSERA_RETURN_IF_ERROR(comm_->GroupStart());
    for (const DeviceTransfer& transfer : transfers) {
      const auto state =
          transfer.is_send
              ? comm_->Send(transfer.data, transfer.bytes, kBytes, transfer.peer, stream)
              : comm_->Recv(transfer.data, transfer.bytes, kBytes, transfer.peer, stream);
      TESSERA_RETURN_IF_ERROR(state.status());
    }
    return comm_->GroupEnd();
  }
  absl::Status Note(const absl::StatusOr<NcclState>& state) {
    recorded_ = false;
    issued_ = state.ok() && *state == NcclState::kSuccess;
    return state.status();
  }
  // Only what has been issued is before the event.
  absl::Status Record() {
    recorded_ = true;
    return stream_->Record(done_);
  }

  const std::shared_ptr<GpuMachine> machine_;
  const int device_;
  const std::unique_ptr<GpuStream> stream_;
  const std::unique_ptr<GpuNcclComm> comm_;  // aborted before its stream goes
  GpuEvent done_;
  bool issued_ = false;    // the last operation is in the stream
  bool recorded_ = false;  // done_ stands behind all operations
  bool aborted_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceCollectives>> CreateNcclCollectives(
    std::shared_ptr<GpuMachine> machine, const GpuNcclId& id, int size, int rank,
    int device) {
  TESSERA_ASSIGN_OR_RETURN(auto stream, GpuStream::Create(machine, device));
  TESSERA_ASSIGN_OR_RETURN(auto comm, GpuNcclComm::InitRank(id, size, rank, device));
  return std::make_unique<NcclCollectives>(std::move(machine), std::move(stream),
                                           std::move(comm), device);
}

}  // namespace tessera::kernels::cuda
