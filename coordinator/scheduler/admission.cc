// Which waiting sequence gets a place, and where.
#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "coordinator/scheduler/group_scheduler.h"
#include "coordinator/scheduler/slot_shares.h"
#include "coordinator/scheduler/tenant_account.h"
#include "coordinator/scheduler/victims.h"
#include "routing/dp_rank_policy.h"

namespace tessera::coordinator {

void GroupScheduler::MakeRoom(absl::Time now, std::vector<Sequence*>* preempted) {
  Sequence* front = waiting_.Front(now);
  if (front == nullptr) {
    return;
  }
  const Sequence* holder = claim_.holder();
  Sequence* victim = nullptr;
  if (holder != nullptr && holder->spec.priority <= front->spec.priority &&
      WaitingQueue::Admissible(*holder, now)) {
    victim = FindVictim(hand_overs_.Places(ranks_, *holder), *holder, &claim_);
  }
  if (victim == nullptr && front->steps_in_flight == 0 &&
      (hand_overs_.enabled() ? AnyFull() : !AnyFreeSlot())) {
    ExtendKeys(front);
    const std::vector<DpRank*> places = hand_overs_.Places(ranks_, *front);
    if (std::none_of(places.begin(), places.end(),
                     [](const DpRank* rank) { return rank->has_free_slot(); })) {
      victim = FindVictim(places, *front, &claim_);
      const SlotShares shares(std::ssize(ranks_) * ranks_.front()->num_slots(),
                              waiting_.busy_weight());
      victim = victim == nullptr ? FindAboveShare(places, *front, shares) : victim;
    }
  }
  if (victim != nullptr) {
    ranks_[static_cast<size_t>(victim->dp_rank)]->Remove(victim);
    preempted->push_back(victim);
  }
}

Sequence* GroupScheduler::First(absl::Time now) const {
  Sequence* front = waiting_.Front(now);
  Sequence* holder = claim_.holder();
  // Its turn has come before; others were let by since then.
  return holder != nullptr && front != nullptr &&
                 holder->spec.priority <= front->spec.priority &&
                 WaitingQueue::Admissible(*holder, now) && MayFit(*holder)
             ? holder
             : front;
}

Sequence* GroupScheduler::NextBehind(Sequence* first, absl::Time now) const {
  // What a preempted sequence needs comes free with the steps in flight.
  if ((!claim_.active() && !hand_overs_.enabled()) || first->steps_in_flight > 0) {
    return nullptr;
  }
  std::vector<Sequence*> passed = {first};
  while (passed.size() < max_passed()) {
    Sequence* next = waiting_.Front(now, passed);
    if (next == nullptr) {
      break;
    }
    if (MayFit(*next)) {
      return next;
    }
    passed.push_back(next);
  }
  // Others may wait for the room that these take up where they have arrived.
  return hand_overs_.FindArrived([&](const Sequence& sequence) {
    return WaitingQueue::Admissible(sequence, now) && MayFit(sequence);
  });
}

bool GroupScheduler::TryAdmit(Sequence* sequence, absl::Time now) {
  ExtendKeys(sequence);
  const std::vector<DpRank*> places = hand_overs_.Places(ranks_, *sequence);
  std::vector<PrefixMatch> matches(ranks_.size());
  std::vector<DiskPrefix> on_disk(ranks_.size());
  std::vector<routing::DpRankLoad> loads(ranks_.size());
  bool saw_all = true;
  for (const DpRank* place : places) {
    const auto i = static_cast<size_t>(place->dp_rank());
    if (!ranks_[i]->has_room()) {
      saw_all = saw_all && !ranks_[i]->has_free_slot();
      continue;
    }
    matches[i] = ranks_[i]->Match(*sequence);
    const int64_t num_blocks =
        sequence->num_blocks(options_.block_size) - std::ssize(matches[i].blocks);
    if (!ranks_[i]->HasTailRoom(matches[i]) ||
        !claim_.Allows(*sequence, static_cast<int>(i), num_blocks, ranks_[i]->running(),
                       options_.num_blocks)) {
      continue;
    }
    loads[i] = place->LoadFor(matches[i]);
    if (!sequence->asked_disk) {
      on_disk[i] = ranks_[i]->MatchDisk(*sequence);
      loads[i].cached_tokens =
          std::max(loads[i].cached_tokens, on_disk[i].num_blocks * options_.block_size);
    }
  }
  const std::optional<int> rank = routing::PickDpRank(
      loads, {.num_tokens = sequence->num_tokens(), .block_size = options_.block_size});
  if (!rank.has_value()) {
    if (saw_all) {
      if (claim_.HeldBy(*sequence) && !IsAmong(places, claim_.dp_rank())) {
        claim_.Drop(*sequence);  // It has to go elsewhere now.
      }
      sequence->misfit = ReleaseCount();
      if (!places.empty()) {
        claim_.Take(sequence, EmptiestRank(places),
                    sequence->num_blocks(options_.block_size));
      }
    } else if (hand_overs_.enabled() && passed_.size() < max_passed()) {
      passed_.push_back(sequence);
    }
    return false;
  }
  const auto idx = static_cast<size_t>(*rank);
  if (AwaitDisk(sequence, *rank, std::move(on_disk[idx]), now)) {
    return false;
  }
  if (hand_overs_.Prefills(*rank)) {
    hand_overs_.Begin(ranks_, sequence);
  }
  claim_.Admitted(sequence, *rank);
  waiting_.Remove(sequence);
  const int64_t num_shortened = matches[idx].num_shortened;
  const int64_t num_matched = std::ssize(matches[idx].blocks);
  ranks_[idx]->Admit(sequence, std::move(matches[idx]));
  if (sequence->handed_over) {
    // It was counted where it was prefilled.
    hand_overs_.Admitted(sequence, num_matched * options_.block_size);
    return true;
  }
  prefix_query_tokens_ += static_cast<uint64_t>(sequence->num_tokens());
  prefix_hit_tokens_ += static_cast<uint64_t>(num_matched * options_.block_size);
  prefix_shortened_tokens_ += static_cast<uint64_t>(num_shortened * options_.block_size);
  return true;
}

bool GroupScheduler::AwaitDisk(Sequence* sequence, int dp_rank, DiskPrefix prefix,
                               absl::Time now) {
  sequence->asked_disk = true;
  if (prefix.items.empty() ||
      !ranks_[static_cast<size_t>(dp_rank)]->Fetch(sequence->spec.tenant, &prefix)) {
    return false;
  }
  sequence->disk_wait = {.dp_rank = dp_rank,
                         .deadline = now + options_.max_disk_wait,
                         .prefix = std::move(prefix)};
  disk_waits_.push_back(sequence);
  ++num_disk_waits_;
  claim_.Drop(*sequence);
  return true;
}

void GroupScheduler::AdvanceDiskWaits(absl::Time now) {
  const std::vector<Sequence*> waiting = disk_waits_;
  for (Sequence* sequence : waiting) {
    DiskWait& wait = *sequence->disk_wait;
    const bool late = now >= wait.deadline;
    num_given_up_disk_waits_ += late ? 1 : 0;
    if (late || !ranks_[static_cast<size_t>(wait.dp_rank)]->Fetch(sequence->spec.tenant,
                                                                  &wait.prefix)) {
      EndDiskWait(sequence);
    }
  }
}

void GroupScheduler::EndDiskWait(Sequence* sequence) {
  std::erase(disk_waits_, sequence);
  sequence->disk_wait.reset();
}

bool GroupScheduler::MayFit(const Sequence& sequence) const {
  // A preempted sequence waits for the tokens that plans in flight still bring it.
  return sequence.steps_in_flight == 0 && !sequence.disk_wait.has_value() &&
         sequence.misfit != ReleaseCount() &&
         std::find(passed_.begin(), passed_.end(), &sequence) == passed_.end();
}

bool GroupScheduler::AnyRoom() const {
  return std::any_of(ranks_.begin(), ranks_.end(),
                     [](const auto& rank) { return rank->has_room(); });
}

bool GroupScheduler::AnyFull() const {
  const auto full = [](const auto& rank) { return !rank->has_free_slot(); };
  return std::any_of(ranks_.begin(), ranks_.end(), full);
}

bool GroupScheduler::AnyFreeSlot() const {
  return std::any_of(ranks_.begin(), ranks_.end(),
                     [](const auto& rank) { return rank->has_free_slot(); });
}

int GroupScheduler::EmptiestRank(std::span<DpRank* const> places) {
  const auto emptiest = std::max_element(
      places.begin(), places.end(), [](const DpRank* a, const DpRank* b) {
        return a->blocks().num_free() < b->blocks().num_free();
      });
  return (*emptiest)->dp_rank();
}

uint64_t GroupScheduler::ReleaseCount() const {
  uint64_t count = claim_.num_drops() + hand_overs_.num_ends();
  for (const auto& rank : ranks_) {
    count += rank->blocks().release_count();
  }
  return count;
}

}  // namespace tessera::coordinator
