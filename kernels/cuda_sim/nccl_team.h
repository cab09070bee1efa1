// NcclTeam: what the ranks of one simulated NCCL communicator share: which operation of
// which rank has begun, which of them meet, and what moved between each pair of ranks.
// sim_nccl.h is the API over it.
//
// A send meets the receive of the other rank in the order in which each of the two ranks
// issues them; the n-th collective of a rank meets the n-th of every other. An operation
// begins when its turn in its stream comes and ends when all of its parts have met:
// nothing is buffered, so that a send that needs its receive elsewhere waits, as NCCL's
// large ones do. Data moves at the meeting, checked as a read of the sender's and a write
// of the receiver's device; the receiver is ordered after what the sender did before.
#ifndef TESSERA_KERNELS_CUDA_SIM_NCCL_TEAM_H_
#define TESSERA_KERNELS_CUDA_SIM_NCCL_TEAM_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "kernels/cuda_sim/access_checker.h"
#include "kernels/cuda_sim/finding.h"
#include "kernels/cuda_sim/stream_scheduler.h"
#include "model/formats/dtype.h"

namespace tessera::kernels::cuda_sim {

struct NcclTransfer {
  bool is_send = false;
  std::byte* data = nullptr;  // a send's is only read
  size_t count = 0;           // elements
  model::DType type = model::DType::kU8;
  int peer = 0;

  size_t bytes() const { return model::DTypeBytes(type, count); }
};

struct NcclCollective {
  enum class Kind { kAllGather, kBroadcast };
  Kind kind = Kind::kAllGather;
  const std::byte* send = nullptr;
  std::byte* recv = nullptr;
  size_t count = 0;  // elements of one rank
  model::DType type = model::DType::kU8;
  int root = 0;

  size_t bytes() const { return model::DTypeBytes(type, count); }
  // "ncclBroadcast of 4 x F32 from rank 1"
  std::string ToString() const;
};

// One group of calls, which is one operation of its stream.
struct NcclCall {
  std::vector<NcclTransfer> transfers;
  std::vector<NcclCollective> collectives;

  // "ncclSend", "ncclGroup".
  std::string Name() const;
};

// From one rank to another.
struct NcclTraffic {
  uint64_t messages = 0;
  uint64_t bytes = 0;

  friend bool operator==(const NcclTraffic&, const NcclTraffic&) = default;
};

// External synchronisation: the machine's lock.
class NcclTeam {
 public:
  struct Member {
    bool joined = false;
    bool stopped = false;  // aborted, revoked or destroyed: its operations just end
    bool left = false;     // finalised, aborted or destroyed
    bool remote_error = false;
    int device = 0;
    int in_flight = 0;  // operations enqueued or begun, and not ended
    uint64_t num_collectives = 0;
    OpId last;  // the operation that began last
  };

  // `number` names the team in findings. All of the machine, which outlives the team's
  // operations.
  NcclTeam(uint64_t number, AccessChecker* checker, FindingLog* findings)
      : number_(number), checker_(*checker), findings_(*findings) {}

  // kInvalidArgument: not such a rank, or one that has joined, or on a device that
  // another rank has.
  absl::Status Join(int num_ranks, int rank, int device);
  bool is_complete() const { return num_joined_ > 0 && num_joined_ == size(); }
  // Every rank that joined has left and its operations have ended.
  bool is_quiescent() const;
  int size() const { return static_cast<int>(members_.size()); }
  uint64_t number() const { return number_; }
  Member& member(int rank) { return members_[static_cast<size_t>(rank)]; }

  // `call` of `rank` begins as `operation`.
  std::shared_ptr<OpenOp> Begin(int rank, std::shared_ptr<const NcclCall> call,
                                const Operation& operation);
  // The rank's operations end without a result, now and later. Its peers are not told:
  // what has not met them waits.
  void Stop(int rank);

  NcclTraffic traffic(int from, int to) const {
    return traffic_[static_cast<size_t>(from * size() + to)];
  }
  void Report(FindingKind kind, std::string name, std::string detail);

 private:
  class Op;
  struct Part {
    std::shared_ptr<Op> op;
    size_t index = 0;  // in its call
  };
  struct Pair {
    std::deque<Part> sends;  // that no receive has met
    std::deque<Part> receives;
  };
  // The n-th collective of every rank.
  struct Slot {
    std::vector<Part> parts;  // by rank
    int num_entered = 0;
    int first = 0;  // the rank that came first
    bool differs = false;
    bool reported = false;
  };

  Pair& pair(int from, int to) { return pairs_[static_cast<size_t>(from * size() + to)]; }
  NcclTraffic& counted(int from, int to) {
    return traffic_[static_cast<size_t>(from * size() + to)];
  }
  void CheckOrder(const Op& op);
  void CheckOverlap(const Op& op);
  void MeetTransfer(const std::shared_ptr<Op>& op, size_t index);
  void Transfer(const Part& send, const Part& receive);
  void EnterCollective(const std::shared_ptr<Op>& op, size_t index);
  void RunCollective(const Slot& slot);
  // A copy from a part of one operation to one of another; false: refused.
  bool Copy(Op& from, const std::byte* source, Op& to, std::byte* target, size_t bytes);
  std::string Missing(Op& op);
  std::string MissingOf(uint64_t number, Slot& slot) const;

  const uint64_t number_;
  AccessChecker& checker_;
  FindingLog& findings_;
  int num_joined_ = 0;
  std::vector<Member> members_;
  std::vector<Pair> pairs_;  // [from, to]
  std::vector<NcclTraffic> traffic_;
  std::map<uint64_t, Slot> slots_;  // collectives that not all have entered
  std::vector<std::vector<std::weak_ptr<Op>>> open_;  // by rank
};

}  // namespace tessera::kernels::cuda_sim

#endif  // TESSERA_KERNELS_CUDA_SIM_NCCL_TEAM_H_
