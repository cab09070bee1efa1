#include "coordinator/scheduler/hand_over.h"

#include <algorithm>
#include <iterator>
#include <optional>

#include "common/check.h"
#include "common/status.h"
#include "coordinator/scheduler/tenant_account.h"
#include "routing/dp_rank_policy.h"

namespace tessera::coordinator {

void HandOverTotals::Add(const HandOverTotals& other) {
  sequences += other.sequences;
  given_up += other.given_up;
  tokens += other.tokens;
  blocks += other.blocks;
  recomputed_tokens += other.recomputed_tokens;
}

bool IsAmong(std::span<DpRank* const> places, int dp_rank) {
  return std::any_of(places.begin(), places.end(), [dp_rank](const DpRank* place) {
    return place->dp_rank() == dp_rank;
  });
}

HandOvers::HandOvers(const SchedulerOptions& options)
    : num_prefill_ranks_(options.num_prefill_ranks),
      prefill_min_tokens_(options.prefill_min_tokens),
      max_transfers_(options.max_transfers),
      block_size_(options.block_size),
      num_blocks_(options.num_blocks) {}

int64_t HandOvers::NumBlocks(const Sequence& sequence) const {
  // As of a match: at least one token is left to compute.
  return (sequence.num_tokens() - 1) / block_size_;
}

int64_t HandOvers::NumTails(const DpRank& rank, int64_t num_blocks) const {
  return rank.blocks().num_tails_of_prefix(num_blocks);
}

bool HandOvers::CouldReceive(const DpRank& rank, const Sequence& sequence) const {
  const HostTier& host = rank.blocks().host();
  const int64_t num_blocks = NumBlocks(sequence);
  return num_blocks <= host.blocks().num_blocks() &&
         NumTails(rank, num_blocks) <= host.tails().num_blocks();
}

bool HandOvers::CanReceive(Ranks ranks, const DpRank& rank,
                           const Sequence& sequence) const {
  const HostTier& host = rank.blocks().host();
  const Inbound inbound = InboundOf(ranks, rank.dp_rank());
  const int64_t num_blocks = NumBlocks(sequence);
  return inbound.num_blocks + num_blocks <= host.blocks().num_blocks() &&
         inbound.num_tails + NumTails(rank, num_blocks) <= host.tails().num_blocks();
}

HandOvers::Inbound HandOvers::InboundOf(Ranks ranks, int dp_rank) const {
  Inbound inbound;
  const auto add = [&](int target, int64_t num_blocks) {
    if (target == dp_rank) {
      ++inbound.num_sequences;
      inbound.num_blocks += num_blocks;
      inbound.num_tails += NumTails(*ranks[static_cast<size_t>(dp_rank)], num_blocks);
    }
  };
  for (const Sequence* sequence : HandingOver(ranks)) {
    add(sequence->hand_over->target, sequence->hand_over->num_blocks);
  }
  for (const Arrived& arrived : arrived_) {
    add(arrived.dp_rank, arrived.num_blocks);
  }
  return inbound;
}

std::vector<Sequence*> HandOvers::HandingOver(Ranks ranks) const {
  std::vector<Sequence*> sequences;
  for (const auto& rank : ranks.first(static_cast<size_t>(num_prefill_ranks_))) {
    std::copy_if(
        rank->running().begin(), rank->running().end(), std::back_inserter(sequences),
        [](const Sequence* sequence) { return sequence->hand_over.has_value(); });
  }
  return sequences;
}

std::vector<DpRank*> HandOvers::Places(Ranks ranks, const Sequence& sequence) const {
  const auto part = [&](size_t begin, size_t end) {
    std::vector<DpRank*> places;
    for (size_t i = begin; i < end; ++i) {
      places.push_back(ranks[i].get());
    }
    return places;
  };
  const auto first_decode = static_cast<size_t>(num_prefill_ranks_);
  std::vector<DpRank*> decode = part(first_decode, ranks.size());
  if (!enabled() || sequence.num_tokens() < prefill_min_tokens_ ||
      sequence.spec.sampling.num_prompt_logprobs >= 0) {
    return decode;
  }
  std::vector<DpRank*> near;
  for (DpRank* rank : decode) {
    const int64_t matched = std::ssize(rank->Match(sequence).blocks) * block_size_;
    if (sequence.num_tokens() - matched < prefill_min_tokens_) {
      near.push_back(rank);
    }
  }
  if (sequence.handed_over) {
    return near.empty() ? decode : near;
  }
  const auto any = [](const std::vector<DpRank*>& places, const auto& holds) {
    return std::any_of(places.begin(), places.end(), holds);
  };
  if (any(near, [](const DpRank* rank) { return rank->has_free_slot(); })) {
    return near;
  }
  if (!any(decode, [&](const DpRank* rank) { return CouldReceive(*rank, sequence); })) {
    return near.empty() ? decode : near;
  }
  const bool can =
      any(decode, [&](const DpRank* rank) { return CanReceive(ranks, *rank, sequence); });
  return can ? part(0, first_decode) : std::vector<DpRank*>();
}

void HandOvers::Begin(Ranks ranks, Sequence* sequence) const {
  const int64_t num_blocks = NumBlocks(*sequence);
  std::vector<routing::DpRankLoad> loads(ranks.size());
  for (size_t i = static_cast<size_t>(num_prefill_ranks_); i < ranks.size(); ++i) {
    const DpRank& rank = *ranks[i];
    const Inbound inbound = InboundOf(ranks, rank.dp_rank());
    loads[i] = rank.LoadFor(rank.Match(*sequence));
    loads[i].has_free_slot = CanReceive(ranks, rank, *sequence);
    loads[i].num_sequences += inbound.num_sequences;
    loads[i].blocks_used += inbound.num_blocks;
    loads[i].blocks_free = num_blocks_;  // Slot and blocks are those of later.
  }
  const std::optional<int> target = routing::PickDpRank(
      loads, {.num_tokens = num_blocks * block_size_, .block_size = block_size_});
  TESSERA_CHECK(target.has_value());
  HandOver& hand_over = sequence->hand_over.emplace();
  hand_over.target = *target;
  hand_over.num_blocks = num_blocks;
  hand_over.num_tokens = num_blocks * block_size_;
}

void HandOvers::Transfer(Ranks ranks, std::span<proto::StepPlan> plans,
                         std::vector<Sequence*>* ended) {
  std::vector<Sequence*> sequences = HandingOver(ranks);
  if (sequences.empty()) {
    return;
  }
  std::sort(sequences.begin(), sequences.end(), RunsBefore());
  PlanRoom room = {.sends = std::vector<int64_t>(ranks.size(), max_transfers_),
                   .receives = std::vector<int64_t>(ranks.size(), max_transfers_),
                   .plans = plans};
  for (Sequence* sequence : sequences) {
    const Outcome outcome = Advance(ranks, sequence, &room);
    if (outcome == Outcome::kGoesOn) {
      continue;
    }
    sequence->handed_over = true;
    ended->push_back(sequence);
    if (outcome == Outcome::kDone) {
      arrived_.push_back({.sequence = sequence,
                          .dp_rank = sequence->hand_over->target,
                          .num_blocks = sequence->hand_over->num_blocks});
    }
    ++(outcome == Outcome::kDone ? totals_.sequences : totals_.given_up);
  }
  const bool transfers = std::any_of(
      plans.begin(), plans.end(), [](const auto& plan) { return !plan.sends.empty(); });
  for (proto::StepPlan& plan : plans) {
    plan.transfers = transfers;
    for (auto* list : {&plan.sends, &plan.receives}) {
      std::stable_sort(list->begin(), list->end(),
                       [](const proto::BlockTransfer& a, const proto::BlockTransfer& b) {
                         return a.peer < b.peer;
                       });
    }
  }
}

bool HandOvers::HasRoom(const Sequence& sequence, const PlanRoom& room) {
  return room.sends[static_cast<size_t>(sequence.dp_rank)] > 0 &&
         room.receives[static_cast<size_t>(sequence.hand_over->target)] > 0;
}

HandOvers::Outcome HandOvers::Advance(Ranks ranks, Sequence* sequence, PlanRoom* room) {
  HandOver& hand_over = *sequence->hand_over;
  if (sequence->restoring) {
    return Outcome::kGoesOn;
  }
  DpRank* const target = ranks[static_cast<size_t>(hand_over.target)].get();
  const int64_t ready = std::min(sequence->computed / block_size_, hand_over.num_blocks);
  while (!hand_over.cursor.broken && hand_over.cursor.num_blocks < ready) {
    if (!HasRoom(*sequence, *room)) {
      return Outcome::kGoesOn;
    }
    const auto idx = static_cast<size_t>(hand_over.cursor.num_blocks);
    const BlockId host = target->mutable_blocks().Receive(
        sequence->query(hand_over.num_blocks), &hand_over.cursor);
    if (hand_over.cursor.broken) {
      // No further chunk; it leaves when those in flight were accepted.
      sequence->tenant->pending_tokens -= sequence->num_known();
      hand_over.num_tokens = sequence->planned;
      break;
    }
    hand_over.serials.push_back(hand_over.cursor.last_serial);
    if (host != kNoBlock) {
      Name(*sequence, {.block = sequence->blocks[idx]}, host, room);
      hand_over.blocks.push_back(host);
      totals_.tokens += static_cast<uint64_t>(block_size_);
    }
  }
  if (sequence->computed < hand_over.num_tokens || sequence->steps_in_flight > 0) {
    return Outcome::kGoesOn;
  }
  return hand_over.cursor.broken ? Outcome::kGivenUp
                                 : AdvanceTails(target, sequence, room);
}

HandOvers::Outcome HandOvers::AdvanceTails(DpRank* target, Sequence* sequence,
                                           PlanRoom* room) {
  HandOver& hand_over = *sequence->hand_over;
  const int64_t num_tails = NumTails(*target, hand_over.num_blocks);
  for (; hand_over.num_tails < num_tails; ++hand_over.num_tails) {
    if (!HasRoom(*sequence, *room)) {
      return Outcome::kGoesOn;
    }
    const int64_t idx = hand_over.num_blocks - num_tails + hand_over.num_tails;
    const auto at = static_cast<size_t>(idx);
    const std::optional<BlockId> host = target->mutable_blocks().ReceiveTail(
        sequence->spec.tenant, sequence->keys[at], hand_over.serials[at]);
    if (!host.has_value()) {
      return Outcome::kGivenUp;
    }
    if (*host != kNoBlock) {
      // It holds them still: the next token sees them.
      const BlockId tail =
          sequence->tail.blocks.at(static_cast<size_t>(idx - sequence->tail.begin));
      Name(*sequence, {.block = tail, .tail = true}, *host, room);
      hand_over.tails.push_back(*host);
    }
  }
  return Outcome::kDone;
}

void HandOvers::Name(const Sequence& sequence, proto::BlockTransfer send, BlockId host,
                     PlanRoom* room) {
  const auto from = static_cast<size_t>(sequence.dp_rank);
  const auto to = static_cast<size_t>(sequence.hand_over->target);
  send.peer = static_cast<uint32_t>(to);
  send.id = next_id_++;
  proto::BlockTransfer receive = send;
  receive.block = host;
  receive.peer = static_cast<uint32_t>(from);
  room->plans[from].sends.push_back(send);
  room->plans[to].receives.push_back(receive);
  --room->sends[from];
  --room->receives[to];
  ++totals_.blocks;
}

bool HandOvers::has_work(Ranks ranks) const {
  const std::vector<Sequence*> sequences = HandingOver(ranks);
  return std::any_of(sequences.begin(), sequences.end(), [&](const Sequence* sequence) {
    const HandOver& hand_over = *sequence->hand_over;
    const bool lacks_some =
        !hand_over.cursor.broken &&
        (hand_over.cursor.num_blocks + 1) * block_size_ <= sequence->computed;
    const bool ends =
        sequence->computed >= hand_over.num_tokens && sequence->steps_in_flight == 0;
    return !sequence->restoring && (lacks_some || ends);
  });
}

void HandOvers::Leave(const Sequence& sequence) {
  num_ends_ += std::erase_if(
      arrived_, [&](const Arrived& arrived) { return arrived.sequence == &sequence; });
}

Sequence* HandOvers::FindArrived(absl::FunctionRef<bool(const Sequence&)> may) const {
  const auto found =
      std::find_if(arrived_.begin(), arrived_.end(),
                   [&](const Arrived& arrived) { return may(*arrived.sequence); });
  return found == arrived_.end() ? nullptr : found->sequence;
}

void HandOvers::Admitted(Sequence* sequence, int64_t num_tokens) {
  Leave(*sequence);
  totals_.recomputed_tokens +=
      static_cast<uint64_t>(NumBlocks(*sequence) * block_size_ - num_tokens);
}

void HandOvers::Drop(Ranks ranks, Sequence* sequence) {
  if (!sequence->hand_over.has_value()) {
    Leave(*sequence);
    return;
  }
  const HandOver& hand_over = *sequence->hand_over;
  ranks[static_cast<size_t>(hand_over.target)]->mutable_blocks().EndReceive(
      hand_over.blocks, hand_over.tails);
  sequence->hand_over.reset();
  ++num_ends_;
}

void HandOvers::Forget(Sequence* sequence) {
  sequence->hand_over.reset();
  sequence->handed_over = false;
}

absl::Status HandOvers::CheckInvariants(Ranks ranks) const {
  const std::vector<Sequence*> sequences = HandingOver(ranks);
  for (const auto& rank : ranks) {
    const BlockManager& manager = rank->blocks();
    int64_t pins = manager.num_restore_pins();
    int64_t tail_pins = manager.num_tail_restore_pins();
    for (const Sequence* sequence : sequences) {
      if (sequence->hand_over->target == rank->dp_rank()) {
        pins += std::ssize(sequence->hand_over->blocks);
        tail_pins += std::ssize(sequence->hand_over->tails);
      }
    }
    if (manager.host().blocks().num_used() > pins ||
        manager.host().tails().num_used() > tail_pins) {
      return InternalF(
          "dp rank {} has {} host blocks and {} host tail blocks pinned, restores and "
          "hand-overs account for {} and {}",
          rank->dp_rank(), manager.host().blocks().num_used(),
          manager.host().tails().num_used(), pins, tail_pins);
    }
  }
  return absl::OkStatus();
}

}  // namespace tessera::coordinator
