#include "kernels/cuda_sim/nccl_team.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "fmt/format.h"
#include "fmt/ranges.h"

#include "common/status.h"

namespace tessera::kernels::cuda_sim {
namespace {

bool Overlap(const std::byte* a, size_t a_bytes, const std::byte* b, size_t b_bytes) {
  return a < b + b_bytes && b < a + a_bytes;
}

std::string What(const NcclTransfer& transfer) {
  return fmt::format("{} of {} x {}", transfer.is_send ? "ncclSend" : "ncclRecv",
                     transfer.count, model::DTypeName(transfer.type));
}

bool SameCall(const NcclCollective& a, const NcclCollective& b) {
  return a.kind == b.kind && a.count == b.count && a.type == b.type && a.root == b.root;
}

}  // namespace

std::string NcclCollective::ToString() const {
  const std::string_view dtype = model::DTypeName(type);
  return kind == Kind::kAllGather
             ? fmt::format("ncclAllGather of {} x {}", count, dtype)
             : fmt::format("ncclBroadcast of {} x {} from rank {}", count, dtype, root);
}

std::string NcclCall::Name() const {
  if (transfers.size() + collectives.size() != 1) {
    return "ncclGroup";
  }
  if (!transfers.empty()) {
    return transfers.front().is_send ? "ncclSend" : "ncclRecv";
  }
  return collectives.front().kind == NcclCollective::Kind::kAllGather ? "ncclAllGather"
                                                                      : "ncclBroadcast";
}

// One rank's call, begun.
class NcclTeam::Op final : public OpenOp {
 public:
  Op(NcclTeam* its_team, int of_rank, std::shared_ptr<const NcclCall> its_call,
     const Operation& begun)
      : team(*its_team),
        rank(of_rank),
        call(std::move(its_call)),
        operation(begun),
        clock(*begun.clock),
        before(clock),
        num_waiting(call->transfers.size() + call->collectives.size()) {
    operation.clock = &clock;
    before.Set(operation.id.stream, operation.id.number - 1);
  }

  bool CanEnd() const override { return num_waiting == 0 || stopped; }
  absl::Status End(Clock& stream_clock) override {
    stream_clock.Join(met);
    --team.member(rank).in_flight;
    return absl::OkStatus();
  }
  std::string Stuck() override { return CanEnd() ? std::string() : team.Missing(*this); }

  NcclTeam& team;
  const int rank;
  const std::shared_ptr<const NcclCall> call;
  Operation operation;
  const Clock clock;
  Clock before;  // what happened before it, without itself
  Clock met;     // of the senders
  size_t num_waiting;
  bool stopped = false;
  bool reported = false;
};

absl::Status NcclTeam::Join(int num_ranks, int rank, int device) {
  if (members_.empty() && num_ranks > 0) {
    const auto n = static_cast<size_t>(num_ranks);
    members_.resize(n);
    open_.resize(n);
    pairs_.resize(n * n);
    traffic_.resize(n * n);
  }
  if (num_ranks != size() || rank < 0 || rank >= num_ranks) {
    return InvalidArgumentF("rank {} of {} joins communicator {} of {} ranks", rank,
                            num_ranks, number_, size());
  }
  for (int other = 0; other < size(); ++other) {
    if (member(other).joined && (other == rank || member(other).device == device)) {
      return InvalidArgumentF(
          "rank {} on device {} joins communicator {}, where rank {} is on device {}",
          rank, device, number_, other, member(other).device);
    }
  }
  member(rank).joined = true;
  member(rank).device = device;
  ++num_joined_;
  return absl::OkStatus();
}

bool NcclTeam::is_quiescent() const {
  return std::all_of(members_.begin(), members_.end(), [](const Member& member) {
    return !member.joined || (member.left && (member.stopped || member.in_flight == 0));
  });
}

void NcclTeam::Report(FindingKind kind, std::string name, std::string detail) {
  findings_.Add({.kind = kind,
                 .kernel = std::move(name),
                 .place = {},
                 .detail = std::move(detail)});
}

std::shared_ptr<OpenOp> NcclTeam::Begin(int rank, std::shared_ptr<const NcclCall> call,
                                        const Operation& operation) {
  auto op = std::make_shared<Op>(this, rank, std::move(call), operation);
  if (operation.in_graph) {
    ++member(rank).in_flight;
  }
  if (member(rank).stopped) {
    op->stopped = true;
    return op;
  }
  CheckOrder(*op);
  CheckOverlap(*op);
  member(rank).last = operation.id;
  std::vector<std::weak_ptr<Op>>& open = open_[static_cast<size_t>(rank)];
  std::erase_if(open, [](const auto& other) { return other.expired(); });
  open.push_back(op);
  for (size_t i = 0; i < op->call->transfers.size(); ++i) {
    MeetTransfer(op, i);
  }
  for (size_t i = 0; i < op->call->collectives.size(); ++i) {
    EnterCollective(op, i);
  }
  return op;
}

// Two operations of a communicator on two streams that nothing orders could begin in
// another order on another rank. NCCL orders them as the host issued them; a graph that
// is replayed does not.
void NcclTeam::CheckOrder(const Op& op) {
  const OpId& last = member(op.rank).last;
  if (!op.clock.Covers(last)) {
    Report(FindingKind::kStreamDependency, op.operation.name,
           fmt::format("rank {} of communicator {}: stream {} did not wait for the "
                       "communicator's last operation, on stream {}",
                       op.rank, number_, op.operation.id.stream, last.stream));
  }
}

void NcclTeam::CheckOverlap(const Op& op) {
  const std::vector<NcclTransfer>& transfers = op.call->transfers;
  for (size_t i = 0; i < transfers.size(); ++i) {
    for (size_t j = 0; j < transfers.size(); ++j) {
      if (i != j && !transfers[i].is_send &&
          Overlap(transfers[i].data, transfers[i].bytes(), transfers[j].data,
                  transfers[j].bytes())) {
        Report(FindingKind::kRace, op.operation.name,
               fmt::format("rank {} of communicator {}: {} from rank {} writes where {} "
                           "of rank {} is under way, in one group",
                           op.rank, number_, What(transfers[i]), transfers[i].peer,
                           What(transfers[j]), transfers[j].peer));
        return;
      }
    }
  }
}

bool NcclTeam::Copy(Op& from, const std::byte* source, Op& to, std::byte* target,
                    size_t bytes) {
  checker_.Begin(from.operation);
  if (!checker_.CopyRange(source, bytes, AccessKind::kRead)) {
    return false;
  }
  checker_.Begin(to.operation);
  if (!checker_.CopyRange(target, bytes, AccessKind::kWrite)) {
    return false;
  }
  std::memmove(target, source, bytes);
  to.met.Join(from.before);
  if (from.rank != to.rank) {
    ++counted(from.rank, to.rank).messages;
    counted(from.rank, to.rank).bytes += bytes;
  }
  return true;
}

void NcclTeam::MeetTransfer(const std::shared_ptr<Op>& op, size_t index) {
  const NcclTransfer& transfer = op->call->transfers[index];
  const bool sends = transfer.is_send;
  Pair& between = sends ? pair(op->rank, transfer.peer) : pair(transfer.peer, op->rank);
  std::deque<Part>& others = sends ? between.receives : between.sends;
  const Part own = {op, index};
  if (others.empty()) {
    (sends ? between.sends : between.receives).push_back(own);
    return;
  }
  const Part other = others.front();
  others.pop_front();
  Transfer(sends ? own : other, sends ? other : own);
}

void NcclTeam::Transfer(const Part& send, const Part& receive) {
  const NcclTransfer& from = send.op->call->transfers[send.index];
  const NcclTransfer& to = receive.op->call->transfers[receive.index];
  --send.op->num_waiting;
  --receive.op->num_waiting;
  if (from.count != to.count || from.type != to.type) {
    Report(FindingKind::kMismatchedCollective, receive.op->operation.name,
           fmt::format("communicator {}: {} from rank {} by rank {} meets {}", number_,
                       What(to), send.op->rank, receive.op->rank, What(from)));
    return;
  }
  Copy(*send.op, from.data, *receive.op, to.data, to.bytes());
}

void NcclTeam::EnterCollective(const std::shared_ptr<Op>& op, size_t index) {
  const uint64_t number = member(op->rank).num_collectives++;
  Slot& slot = slots_[number];
  if (slot.parts.empty()) {
    slot.parts.resize(members_.size());
    slot.first = op->rank;
  }
  slot.parts[static_cast<size_t>(op->rank)] = {op, index};
  ++slot.num_entered;
  const Part& first = slot.parts[static_cast<size_t>(slot.first)];
  const NcclCollective& own = op->call->collectives[index];
  if (first.op != nullptr && !SameCall(first.op->call->collectives[first.index], own)) {
    slot.differs = true;
    Report(FindingKind::kMismatchedCollective, op->operation.name,
           fmt::format("communicator {}, collective {}: rank {} entered {}, rank {} {}",
                       number_, number, slot.first,
                       first.op->call->collectives[first.index].ToString(), op->rank,
                       own.ToString()));
  }
  if (slot.num_entered == size()) {
    RunCollective(slot);
    slots_.erase(number);
  }
}

void NcclTeam::RunCollective(const Slot& slot) {
  for (const Part& part : slot.parts) {
    --part.op->num_waiting;
  }
  if (slot.differs) {
    return;
  }
  for (const Part& from : slot.parts) {
    const NcclCollective& sent = from.op->call->collectives[from.index];
    const bool gathers = sent.kind == NcclCollective::Kind::kAllGather;
    if (!gathers && from.op->rank != sent.root) {
      continue;
    }
    const size_t offset = gathers ? static_cast<size_t>(from.op->rank) * sent.bytes() : 0;
    for (const Part& to : slot.parts) {
      std::byte* const target = to.op->call->collectives[to.index].recv + offset;
      if (target != sent.send) {  // in place
        Copy(*from.op, sent.send, *to.op, target, sent.bytes());
      }
    }
  }
}

void NcclTeam::Stop(int rank) {
  member(rank).stopped = true;
  const auto is_own = [rank](const Part& part) { return part.op->rank == rank; };
  for (int peer = 0; peer < size(); ++peer) {
    std::erase_if(pair(rank, peer).sends, is_own);
    std::erase_if(pair(peer, rank).receives, is_own);
  }
  for (auto& [number, slot] : slots_) {
    Part& part = slot.parts[static_cast<size_t>(rank)];
    slot.num_entered -= part.op != nullptr ? 1 : 0;
    part = {};
  }
  for (const std::weak_ptr<Op>& open : open_[static_cast<size_t>(rank)]) {
    if (const std::shared_ptr<Op> op = open.lock()) {
      op->stopped = true;
    }
  }
}

std::string NcclTeam::MissingOf(uint64_t number, Slot& slot) const {
  std::vector<int> entered;
  std::vector<int> missing;
  for (int rank = 0; rank < size(); ++rank) {
    (slot.parts[static_cast<size_t>(rank)].op != nullptr ? entered : missing)
        .push_back(rank);
  }
  const Part& part = slot.parts[static_cast<size_t>(entered.front())];
  return fmt::format(
      "communicator {}, collective {}, {}: entered by ranks {}, missing ranks {}",
      number_, number, part.op->call->collectives[part.index].ToString(),
      fmt::join(entered, ", "), fmt::join(missing, ", "));
}

// The first thing that the operation misses, reported once.
std::string NcclTeam::Missing(Op& op) {
  for (auto& [number, slot] : slots_) {
    if (slot.parts[static_cast<size_t>(op.rank)].op.get() == &op) {
      std::string detail = MissingOf(number, slot);
      if (!slot.reported) {
        slot.reported = true;
        Report(FindingKind::kPartialCollective, op.operation.name, detail);
      }
      return detail;
    }
  }
  for (size_t i = 0; i < op.call->transfers.size(); ++i) {
    const NcclTransfer& transfer = op.call->transfers[i];
    const Pair& between =
        transfer.is_send ? pair(op.rank, transfer.peer) : pair(transfer.peer, op.rank);
    const std::deque<Part>& waiting = transfer.is_send ? between.sends : between.receives;
    const bool waits = std::any_of(waiting.begin(), waiting.end(), [&](const Part& part) {
      return part.op.get() == &op && part.index == i;
    });
    if (!waits) {
      continue;
    }
    std::string detail = fmt::format(
        "communicator {}: {} {} rank {} by rank {}: rank {} has not entered its {}",
        number_, What(transfer), transfer.is_send ? "to" : "from", transfer.peer, op.rank,
        transfer.peer, transfer.is_send ? "ncclRecv" : "ncclSend");
    if (!op.reported) {
      op.reported = true;
      Report(FindingKind::kPartialCollective, op.operation.name, detail);
    }
    return detail;
  }
  return "";
}

}  // namespace tessera::kernels::cuda_sim
