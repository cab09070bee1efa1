#include "kernels/cuda_sim/sim_nccl.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "fmt/format.h"

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::kernels::cuda_sim {
namespace {

// GetAsyncErrors that say "in progress", less one.
constexpr size_t kMaxPolls = 3;

// What the bytes of an id hold.
struct IdContent {
  std::array<char, 8> magic = {'s', 'i', 'm', '-', 'n', 'c', 'c', 'l'};
  uint64_t machine = 0;
  uint64_t index = 0;  // among the machine's published teams
};

}  // namespace

NcclTraffic SimNcclId::Traffic(int from, int to) const {
  return SimNcclComm::Traffic(*this, from, to);
}

absl::StatusOr<DeviceGroupId> SimNcclId::bytes() const {
  return SimNcclComm::Publish(*this);
}

absl::StatusOr<SimNcclId> SimNcclId::Of(std::shared_ptr<SimMachine> machine,
                                        const DeviceGroupId& bytes) {
  std::shared_ptr<NcclTeam> team = SimNcclComm::Published(*machine, bytes);
  if (team == nullptr) {
    return absl::InvalidArgumentError("the id of a communicator of another machine");
  }
  return SimNcclId(std::move(machine), std::move(team));
}

DeviceGroupId SimNcclComm::Publish(const SimNcclId& id) {
  MutexLock lock(&id.machine_->mutex_);
  auto& teams = id.machine_->nccl_teams_;
  const auto found = std::find(teams.begin(), teams.end(), id.team_);
  IdContent content;
  content.machine = reinterpret_cast<uintptr_t>(id.machine_.get());
  content.index = static_cast<uint64_t>(found - teams.begin());
  if (found == teams.end()) {
    teams.push_back(id.team_);
  }
  DeviceGroupId bytes;
  std::memcpy(bytes.bytes.data(), &content, sizeof(content));
  return bytes;
}

std::shared_ptr<NcclTeam> SimNcclComm::Published(SimMachine& machine,
                                                 const DeviceGroupId& bytes) {
  IdContent content;
  std::memcpy(&content, bytes.bytes.data(), sizeof(content));
  MutexLock lock(&machine.mutex_);
  const bool is_known = content.magic == IdContent().magic &&
                        content.machine == reinterpret_cast<uintptr_t>(&machine) &&
                        content.index < machine.nccl_teams_.size();
  return is_known ? machine.nccl_teams_[content.index] : nullptr;
}

SimNcclId SimNcclComm::GetUniqueId(std::shared_ptr<SimMachine> machine) {
  MutexLock lock(&machine->mutex_);
  auto team = std::make_shared<NcclTeam>(machine->num_nccl_teams_++, &machine->checker_,
                                         &machine->findings_);
  return {machine, std::move(team)};
}

NcclTraffic SimNcclComm::Traffic(const SimNcclId& id, int from, int to) {
  MutexLock lock(&id.machine_->mutex_);
  return id.team_->traffic(from, to);
}

absl::StatusOr<std::unique_ptr<SimNcclComm>> SimNcclComm::InitRank(const SimNcclId& id,
                                                                   int num_ranks,
                                                                   int rank, int device) {
  TESSERA_RETURN_IF_ERROR(id.machine_->CheckDevice(device));
  MutexLock lock(&id.machine_->mutex_);
  TESSERA_RETURN_IF_ERROR(id.team_->Join(num_ranks, rank, device));
  const auto polls = static_cast<int>(id.machine_->scheduler_.random().Below(kMaxPolls));
  return std::unique_ptr<SimNcclComm>(new SimNcclComm(id, rank, device, polls));
}

SimNcclComm::SimNcclComm(const SimNcclId& id, int rank, int device, int polls)
    : machine_(id.machine_),
      team_(id.team_),
      rank_(rank),
      size_(id.team_->size()),
      device_(device),
      polls_(polls) {}

SimNcclComm::~SimNcclComm() {
  MutexLock lock(&machine_->mutex_);
  if (aborted_) {
    return;
  }
  NcclTeam::Member& member = team_->member(rank_);
  if (!member.stopped && (member.in_flight > 0 || call_ != nullptr)) {
    team_->Report(FindingKind::kDeadCommunicator, "ncclCommDestroy",
                  fmt::format("rank {} of communicator {}: operations are under way",
                              rank_, team_->number()));
  }
  team_->Stop(rank_);
  member.left = true;
}

bool SimNcclComm::CountDown() {
  if (polls_ > 0) {
    --polls_;
    return false;
  }
  return true;
}

absl::StatusOr<NcclState> SimNcclComm::GetAsyncError() {
  MutexLock lock(&machine_->mutex_);
  if (aborted_) {
    team_->Report(FindingKind::kDeadCommunicator, "ncclCommGetAsyncError", end_);
    return absl::FailedPreconditionError(end_);
  }
  if (team_->member(rank_).remote_error) {
    return NcclState::kRemoteError;
  }
  if (!is_formed_) {
    is_formed_ = team_->is_complete() && CountDown();
    return is_formed_ ? NcclState::kSuccess : NcclState::kInProgress;
  }
  if (is_finalizing_) {
    return team_->is_quiescent() ? NcclState::kSuccess : NcclState::kInProgress;
  }
  if (call_ != nullptr && !in_group_) {
    if (!CountDown()) {
      return NcclState::kInProgress;
    }
    TESSERA_RETURN_IF_ERROR(IssueNow());
  }
  return NcclState::kSuccess;
}

absl::Status SimNcclComm::CheckUsable(std::string_view call) {
  if (!end_.empty()) {
    team_->Report(FindingKind::kDeadCommunicator, std::string(call), end_);
    return StatusF(absl::StatusCode::kFailedPrecondition, "{}: {}", call, end_);
  }
  if (!is_formed_ || (call_ != nullptr && !in_group_)) {
    return StatusF(absl::StatusCode::kFailedPrecondition,
                   "{}: rank {} of communicator {} is in progress", call, rank_,
                   team_->number());
  }
  return absl::OkStatus();
}

absl::Status SimNcclComm::GroupStart() {
  MutexLock lock(&machine_->mutex_);
  TESSERA_RETURN_IF_ERROR(CheckUsable("ncclGroupStart"));
  if (in_group_) {
    return absl::FailedPreconditionError("ncclGroupStart inside a group");
  }
  in_group_ = true;
  call_ = std::make_shared<NcclCall>();
  stream_ = nullptr;
  return absl::OkStatus();
}

absl::StatusOr<NcclState> SimNcclComm::GroupEnd() {
  MutexLock lock(&machine_->mutex_);
  TESSERA_RETURN_IF_ERROR(CheckUsable("ncclGroupEnd"));
  if (!in_group_) {
    return absl::FailedPreconditionError("ncclGroupEnd without a group");
  }
  return EndGroup();
}

absl::StatusOr<NcclState> SimNcclComm::EndGroup() {
  in_group_ = false;
  if (stream_ == nullptr) {  // an empty group
    call_ = nullptr;
    return NcclState::kSuccess;
  }
  polls_ = static_cast<int>(machine_->scheduler_.random().Below(kMaxPolls));
  if (polls_ > 0) {
    return NcclState::kInProgress;
  }
  TESSERA_RETURN_IF_ERROR(IssueNow());
  return NcclState::kSuccess;
}

absl::Status SimNcclComm::IssueNow() {
  StreamOp op;
  op.kind = StreamOp::Kind::kOpen;
  op.name = call_->Name();
  op.open = [team = team_, rank = rank_,
             call = std::shared_ptr<const NcclCall>(call_)](const Operation& operation) {
    return team->Begin(rank, call, operation);
  };
  call_ = nullptr;
  // What is captured counts when it is replayed.
  team_->member(rank_).in_flight += stream_->queue_->capture == nullptr ? 1 : 0;
  return machine_->scheduler_.Enqueue(*stream_->queue_, std::move(op));
}

absl::Status SimNcclComm::CheckStream(SimStream& stream) {
  if (stream.machine_ != machine_ || stream.queue_->device != device_) {
    return InvalidArgumentF(
        "rank {} of communicator {} is on device {}, the stream on {}", rank_,
        team_->number(), device_, stream.queue_->device);
  }
  if (stream_ != nullptr && stream_ != &stream) {
    return absl::InvalidArgumentError("a second stream in one group");
  }
  stream_ = &stream;
  return absl::OkStatus();
}

absl::Status SimNcclComm::OpenCall(std::string_view role, int rank, SimStream& stream) {
  if (rank < 0 || rank >= size_) {
    return InvalidArgumentF("{} {}, expected 0 to {}", role, rank, size_ - 1);
  }
  if (!in_group_) {
    call_ = nullptr;
    stream_ = nullptr;
  }
  TESSERA_RETURN_IF_ERROR(CheckStream(stream));
  if (call_ == nullptr) {
    call_ = std::make_shared<NcclCall>();
  }
  return absl::OkStatus();
}

absl::StatusOr<NcclState> SimNcclComm::Add(const NcclTransfer& transfer,
                                           SimStream& stream) {
  MutexLock lock(&machine_->mutex_);
  TESSERA_RETURN_IF_ERROR(CheckUsable(transfer.is_send ? "ncclSend" : "ncclRecv"));
  TESSERA_RETURN_IF_ERROR(OpenCall("peer", transfer.peer, stream));
  call_->transfers.push_back(transfer);
  return in_group_ ? NcclState::kSuccess : EndGroup();
}

absl::StatusOr<NcclState> SimNcclComm::Add(const NcclCollective& collective,
                                           SimStream& stream) {
  MutexLock lock(&machine_->mutex_);
  TESSERA_RETURN_IF_ERROR(CheckUsable(collective.kind == NcclCollective::Kind::kAllGather
                                          ? "ncclAllGather"
                                          : "ncclBroadcast"));
  TESSERA_RETURN_IF_ERROR(OpenCall("root", collective.root, stream));
  call_->collectives.push_back(collective);
  return in_group_ ? NcclState::kSuccess : EndGroup();
}

absl::StatusOr<NcclState> SimNcclComm::Send(const void* data, size_t count,
                                            model::DType type, int peer,
                                            SimStream& stream) {
  auto* const bytes = static_cast<std::byte*>(const_cast<void*>(data));
  return Add(NcclTransfer{true, bytes, count, type, peer}, stream);
}

absl::StatusOr<NcclState> SimNcclComm::Recv(void* data, size_t count, model::DType type,
                                            int peer, SimStream& stream) {
  return Add(NcclTransfer{false, static_cast<std::byte*>(data), count, type, peer},
             stream);
}

absl::StatusOr<NcclState> SimNcclComm::AllGather(const void* send, void* recv,
                                                 size_t count, model::DType type,
                                                 SimStream& stream) {
  return Add(NcclCollective{NcclCollective::Kind::kAllGather,
                            static_cast<const std::byte*>(send),
                            static_cast<std::byte*>(recv), count, type, 0},
             stream);
}

absl::StatusOr<NcclState> SimNcclComm::Broadcast(const void* send, void* recv,
                                                 size_t count, model::DType type,
                                                 int root, SimStream& stream) {
  return Add(NcclCollective{NcclCollective::Kind::kBroadcast,
                            static_cast<const std::byte*>(send),
                            static_cast<std::byte*>(recv), count, type, root},
             stream);
}

absl::Status SimNcclComm::Finalize() {
  MutexLock lock(&machine_->mutex_);
  TESSERA_RETURN_IF_ERROR(CheckUsable("ncclCommFinalize"));
  is_finalizing_ = true;
  team_->member(rank_).left = true;
  end_ = fmt::format("rank {} of communicator {} was finalised", rank_, team_->number());
  return absl::OkStatus();
}

absl::Status SimNcclComm::Revoke() {
  MutexLock lock(&machine_->mutex_);
  if (!end_.empty()) {
    return StatusF(absl::StatusCode::kFailedPrecondition, "ncclCommRevoke: {}", end_);
  }
  team_->Stop(rank_);
  call_ = nullptr;
  in_group_ = false;
  end_ = fmt::format("rank {} of communicator {} was revoked", rank_, team_->number());
  return absl::OkStatus();
}

void SimNcclComm::Abort() {
  MutexLock lock(&machine_->mutex_);
  if (aborted_) {
    team_->Report(FindingKind::kDeadCommunicator, "ncclCommAbort", end_);
    return;
  }
  aborted_ = true;
  team_->Stop(rank_);
  team_->member(rank_).left = true;
  call_ = nullptr;
  in_group_ = false;
  end_ = fmt::format("rank {} of communicator {} was aborted", rank_, team_->number());
  for (int peer = 0; peer < size_; ++peer) {
    NcclTeam::Member& member = team_->member(peer);
    member.remote_error =
        member.remote_error || machine_->scheduler_.random().Below(2) == 0;
  }
}

}  // namespace tessera::kernels::cuda_sim
