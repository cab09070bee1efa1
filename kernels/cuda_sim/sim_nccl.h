// SimNcclComm: one rank of a simulated NCCL communicator, on one device of a SimMachine,
// with the calls of NCCL that Tessera uses, each as a method of the same meaning
// (ncclAllGather: AllGather). What each call means is what nccl.h of NCCL 2.28 and its
// guide say; nccl_team.h says how ranks meet.
//
// Communicators are non-blocking, as with ncclConfig_t::blocking = 0: creation, and every
// group of operations, may still be in progress when its call returns, and takes effect
// at a GetAsyncError that says so, after a random number of them. An event that is
// recorded before stands before the operation. Operations are operations of their stream,
// captured like others, and run once all that meet have begun.
//
// Two ways in which they go wrong are findings (finding.h): what ranks want of each other
// differs, or nothing can make a rank come. Whoever waits while another thread may still
// bring its rank asks an event (SimEvent::Query), since a synchronisation would wait for
// ever.
#ifndef TESSERA_KERNELS_CUDA_SIM_SIM_NCCL_H_
#define TESSERA_KERNELS_CUDA_SIM_SIM_NCCL_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "kernels/cuda/primitives/device_types.h"
#include "kernels/cuda_sim/nccl_team.h"
#include "kernels/cuda_sim/sim_machine.h"
#include "kernels/cuda_sim/sim_stream.h"
#include "kernels/runtime/device_group_id.h"
#include "model/formats/dtype.h"

namespace tessera::kernels::cuda_sim {

// ncclUniqueId: names a communicator that is to be made. Copyable.
class SimNcclId {
 public:
  // Its bytes, by which other ranks have it; the machine knows them from then on.
  absl::StatusOr<DeviceGroupId> bytes() const;
  // kInvalidArgument: bytes of no id of this machine.
  static absl::StatusOr<SimNcclId> Of(std::shared_ptr<SimMachine> machine,
                                      const DeviceGroupId& bytes);

  // What went from one rank to another, itself excluded: one message for each receive or
  // part of a collective that another rank filled.
  NcclTraffic Traffic(int from, int to) const;

 private:
  friend class SimNcclComm;
  SimNcclId(std::shared_ptr<SimMachine> machine, std::shared_ptr<NcclTeam> team)
      : machine_(std::move(machine)), team_(std::move(team)) {}

  std::shared_ptr<SimMachine> machine_;
  std::shared_ptr<NcclTeam> team_;
};

using cuda::NcclState;

// One thread uses a communicator at a time. The streams of its operations must outlive
// the operations.
class SimNcclComm {
 public:
  // A machine is of one process.
  static constexpr bool kReachesProcesses = false;

  // ncclGetUniqueId.
  static SimNcclId GetUniqueId(std::shared_ptr<SimMachine> machine);
  // ncclCommInitRankConfig. Complete once all ranks have called it. kInvalidArgument: not
  // such a rank or device, or one that is taken.
  static absl::StatusOr<std::unique_ptr<SimNcclComm>> InitRank(const SimNcclId& id,
                                                               int num_ranks, int rank,
                                                               int device);
  // ncclCommDestroy, unless it was aborted. A finding if operations are under way.
  ~SimNcclComm();
  SimNcclComm(const SimNcclComm&) = delete;
  SimNcclComm& operator=(const SimNcclComm&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }

  // ncclCommGetAsyncError. kFailedPrecondition after Abort. A peer's abort may show here
  // or not: NCCL learns of it from the network, not over NVLink.
  absl::StatusOr<NcclState> GetAsyncError();

  // ncclGroupStart, ncclGroupEnd: what lies between is one operation of one stream.
  // kFailedPrecondition: the communicator is in progress, or no longer takes operations,
  // which is a finding as well; kInvalidArgument: a bad rank, device or second stream.
  absl::Status GroupStart();
  // kSuccess: the operation is in its stream; kInProgress: once GetAsyncError says so.
  absl::StatusOr<NcclState> GroupEnd();
  // Outside of a group each is a group of its own; inside, kSuccess.
  absl::StatusOr<NcclState> Send(const void* data, size_t count, model::DType type,
                                 int peer, SimStream& stream);
  absl::StatusOr<NcclState> Recv(void* data, size_t count, model::DType type, int peer,
                                 SimStream& stream);
  // `count` elements of each rank.
  absl::StatusOr<NcclState> AllGather(const void* send, void* recv, size_t count,
                                      model::DType type, SimStream& stream);
  absl::StatusOr<NcclState> Broadcast(const void* send, void* recv, size_t count,
                                      model::DType type, int root, SimStream& stream);

  // ncclCommFinalize: in progress until every rank has done so and operations have ended.
  absl::Status Finalize();
  // ncclCommRevoke: operations under way end without a result, and no other may follow.
  absl::Status Revoke();
  // ncclCommAbort: the same, and the communicator is gone.
  void Abort();

 private:
  friend class SimNcclId;

  SimNcclComm(const SimNcclId& id, int rank, int device, int polls);
  static NcclTraffic Traffic(const SimNcclId& id, int from, int to);
  static DeviceGroupId Publish(const SimNcclId& id);
  static std::shared_ptr<NcclTeam> Published(SimMachine& machine,
                                             const DeviceGroupId& bytes);
  absl::Status CheckUsable(std::string_view call)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(machine_->mutex_);
  absl::StatusOr<NcclState> Add(const NcclTransfer& transfer, SimStream& stream);
  absl::StatusOr<NcclState> Add(const NcclCollective& collective, SimStream& stream);
  // Before a call is added, alone or to a group: its other rank, its stream.
  absl::Status OpenCall(std::string_view role, int rank, SimStream& stream)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(machine_->mutex_);
  absl::Status CheckStream(SimStream& stream)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(machine_->mutex_);
  absl::StatusOr<NcclState> EndGroup() ABSL_EXCLUSIVE_LOCKS_REQUIRED(machine_->mutex_);
  absl::Status IssueNow() ABSL_EXCLUSIVE_LOCKS_REQUIRED(machine_->mutex_);
  bool CountDown() ABSL_EXCLUSIVE_LOCKS_REQUIRED(machine_->mutex_);

  const std::shared_ptr<SimMachine> machine_;
  const std::shared_ptr<NcclTeam> team_;
  const int rank_;
  const int size_;
  const int device_;
  // All below under the machine's lock.
  bool is_formed_ = false;
  bool is_finalizing_ = false;
  int polls_;  // GetAsyncErrors that still say kInProgress
  bool aborted_ = false;
  std::string end_;  // why no operation may follow
  bool in_group_ = false;
  std::shared_ptr<NcclCall> call_;  // of the group, or to be issued
  SimStream* stream_ = nullptr;     // of call_
};

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_SIM_NCCL_H_
