#include "coordinator/cluster/cluster_state.h"

#include <algorithm>
#include <iterator>
#include <tuple>
#include <utility>

#include "fmt/format.h"

#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::coordinator {
namespace {

using proto::ClusterMember;
using proto::ClusterRole;
using proto::MemberSetting;

bool SamePlace(const ClusterMember& a, const ClusterMember& b) {
  return a.role == b.role && a.rank == b.rank;
}

bool Before(const MemberView& a, const MemberView& b) {
  return std::tuple(a.member.role, a.member.rank) <
         std::tuple(b.member.role, b.member.rank);
}

absl::Status CheckSame(std::string_view what, const std::string& seen,
                       const std::string& expected) {
  if (!expected.empty() && seen != expected) {
    return StatusF(absl::StatusCode::kFailedPrecondition, "{} \"{}\", expected \"{}\"",
                   what, seen, expected);
  }
  return absl::OkStatus();
}

std::string_view ValueOf(const std::vector<MemberSetting>& settings,
                         std::string_view name) {
  for (const MemberSetting& setting : settings) {
    if (setting.name == name) {
      return setting.value;
    }
  }
  return "nothing";
}

// What differs, with both values each; their order means nothing.
absl::Status CheckSettings(const std::vector<MemberSetting>& seen,
                           const std::vector<MemberSetting>& expected) {
  std::string differences;
  const auto compare = [&](const std::string& name) {
    const std::string_view here = ValueOf(expected, name);
    if (const std::string_view there = ValueOf(seen, name); there != here) {
      differences += fmt::format("{}{} {}, expected {}", differences.empty() ? "" : "; ",
                                 name, there, here);
    }
  };
  for (const MemberSetting& setting : expected) {
    compare(setting.name);
  }
  for (const MemberSetting& setting : seen) {
    if (ValueOf(expected, setting.name) == "nothing") {
      compare(setting.name);
    }
  }
  return expected.empty() || differences.empty()
             ? absl::OkStatus()
             : absl::FailedPreconditionError(differences);
}

Liveness Grade(const ClusterOptions& options, Liveness before, absl::Duration age) {
  if (before == Liveness::kDead || age >= options.dead_after) {
    return Liveness::kDead;
  }
  return age >= options.suspect_after ? Liveness::kSuspect : Liveness::kAlive;
}

}  // namespace

ClusterState::ClusterState(const ClusterOptions& options, Clock* clock)
    : options_(options), clock_(clock), view_(std::make_shared<ClusterView>()) {}

std::shared_ptr<ClusterView> ClusterState::NextView() const {
  auto next = std::make_shared<ClusterView>(*view_);
  ++next->version;
  for (size_t i = 0; i < next->members.size(); ++i) {
    next->members[i].last_heartbeat = last_heartbeats_[i];
  }
  return next;
}

absl::Status ClusterState::CheckMember(const ClusterMember& member) const {
  const bool is_worker = member.role == ClusterRole::kWorker;
  const uint32_t limit = is_worker ? options_.max_workers : options_.max_shards;
  if (member.rank >= limit || member.address.empty()) {
    return InvalidArgumentF("rank {} at \"{}\", expected a rank below {} and an address",
                            member.rank, member.address, limit);
  }
  TESSERA_RETURN_IF_ERROR(
      CheckSame("build", member.build_version, options_.build_version));
  TESSERA_RETURN_IF_ERROR(
      CheckSame("model digest", member.model_digest, options_.model_digest));
  if (!options_.table_digests.empty() && member.table_digests != options_.table_digests) {
    return StatusF(absl::StatusCode::kFailedPrecondition,
                   "{} table digests are not the {} of this cell",
                   member.table_digests.size(), options_.table_digests.size());
  }
  if (!is_worker) {
    return absl::OkStatus();
  }
  if (member.epoch != view_->epoch) {
    return StatusF(absl::StatusCode::kFailedPrecondition, "epoch {}, expected {}",
                   member.epoch, view_->epoch);
  }
  TESSERA_RETURN_IF_ERROR(
      CheckSame("numerics id", member.numerics_id, options_.numerics_id));
  return CheckSettings(member.settings, options_.settings);
}

absl::StatusOr<uint64_t> ClusterState::Register(const ClusterMember& member) {
  const absl::Time now = clock_->Now();
  MutexLock lock(&mutex_);
  TESSERA_RETURN_IF_ERROR(CheckMember(member));
  auto next = NextView();
  MemberView entry;
  entry.member = member;
  entry.last_heartbeat = now;
  const auto at =
      std::lower_bound(next->members.begin(), next->members.end(), entry, Before);
  const auto index = std::distance(next->members.begin(), at);
  if (at != next->members.end() && SamePlace(at->member, member)) {
    const bool lives =
        at->liveness != Liveness::kDead && now - at->last_heartbeat < options_.dead_after;
    // The same process asks again when the answer was lost on the way.
    if (lives && !(at->member == member)) {
      return StatusF(absl::StatusCode::kFailedPrecondition, "rank {} is {} already",
                     member.rank, at->member.address);
    }
    entry.member_id = next_member_id_++;
    *at = entry;
    last_heartbeats_[static_cast<size_t>(index)] = now;
  } else {
    entry.member_id = next_member_id_++;
    next->members.insert(at, entry);
    last_heartbeats_.insert(last_heartbeats_.begin() + index, now);
  }
  view_ = std::move(next);
  return entry.member_id;
}

absl::Status ClusterState::Heartbeat(uint64_t member_id) {
  const absl::Time now = clock_->Now();
  MutexLock lock(&mutex_);
  for (size_t i = 0; i < view_->members.size(); ++i) {
    const MemberView& entry = view_->members[i];
    if (entry.member_id != member_id) {
      continue;
    }
    // A beat that comes too late does not raise the dead, whether or not a sweep has seen
    // it.
    if (entry.liveness == Liveness::kDead ||
        now - last_heartbeats_[i] >= options_.dead_after) {
      break;
    }
    last_heartbeats_[i] = now;
    return absl::OkStatus();
  }
  return StatusF(absl::StatusCode::kNotFound, "member {} is not registered", member_id);
}

absl::Status ClusterState::StartEpoch(uint64_t epoch) {
  MutexLock lock(&mutex_);
  if (epoch <= view_->epoch) {
    return StatusF(absl::StatusCode::kFailedPrecondition, "epoch {} after epoch {}",
                   epoch, view_->epoch);
  }
  auto next = NextView();
  next->epoch = epoch;
  std::erase_if(next->members, [](const MemberView& entry) {
    return entry.member.role == ClusterRole::kWorker;
  });
  last_heartbeats_.clear();
  for (const MemberView& entry : next->members) {
    last_heartbeats_.push_back(entry.last_heartbeat);
  }
  view_ = std::move(next);
  return absl::OkStatus();
}

void ClusterState::MarkDead(uint64_t member_id) {
  MutexLock lock(&mutex_);
  auto next = NextView();
  for (MemberView& entry : next->members) {
    if (entry.member_id == member_id && entry.liveness != Liveness::kDead) {
      entry.liveness = Liveness::kDead;
      view_ = std::move(next);
      return;
    }
  }
}

bool ClusterState::Sweep() {
  const absl::Time now = clock_->Now();
  MutexLock lock(&mutex_);
  auto next = NextView();
  bool changed = false;
  for (MemberView& entry : next->members) {
    const Liveness grade = Grade(options_, entry.liveness, now - entry.last_heartbeat);
    changed = changed || grade != entry.liveness;
    entry.liveness = grade;
  }
  if (changed) {
    view_ = std::move(next);
  }
  return changed;
}

std::vector<MemberView> ClusterState::Members() const {
  MutexLock lock(&mutex_);
  return NextView()->members;
}

std::shared_ptr<const ClusterView> ClusterState::View() const {
  MutexLock lock(&mutex_);
  return view_;
}

}  // namespace tessera::coordinator
