#include "coordinator/scheduler/dp_rank.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_map.h"

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"
#include "coordinator/scheduler/tenant_account.h"

namespace tessera::coordinator {
namespace {

// Of what prompts share in a step, the one that came first gets one in so many.
constexpr int64_t kFirstPromptShare = 4;

// A chunk has so many tokens at least, however much each of them costs: below, the parts
// of a step that do not depend on its tokens would cost more than they.
constexpr int64_t kMinChunkTokens = 16;

bool CameFirst(const Sequence* a, const Sequence* b) {
  return a->spec.priority != b->spec.priority ? a->spec.priority < b->spec.priority
                                              : a->order < b->order;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DpRank>> DpRank::Create(const SchedulerOptions& options,
                                                       int dp_rank) {
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<SequenceBlocks> blocks,
                           SequenceBlocks::Create(options));
  return std::unique_ptr<DpRank>(new DpRank(options, dp_rank, std::move(blocks)));
}

DpRank::DpRank(const SchedulerOptions& options, int dp_rank,
               std::unique_ptr<SequenceBlocks> blocks)
    : options_(options), dp_rank_(dp_rank), blocks_(std::move(blocks)) {
  Reset();
}

void DpRank::Reset() {
  blocks_->Reset();
  free_slots_.clear();
  for (int64_t slot = num_slots() - 1; slot >= 0; --slot) {
    free_slots_.push_back(static_cast<uint32_t>(slot));
  }
  pending_releases_.clear();
  probe_slots_.clear();
  running_.clear();
  by_runs_before_ = true;
  in_flight_.clear();
}

int64_t DpRank::num_slots() const {
  // No more slots in use than tokens in a step: every decode then gets its token in every
  // step, and a sequence that prefills always finds at least one left.
  return std::min(options_.max_num_seqs, options_.max_num_batched_tokens);
}

void DpRank::BeginPlan(proto::StepPlan* plan) {
  TESSERA_CHECK(plan_ == nullptr);
  plan_ = plan;
  budget_ = options_.max_num_batched_tokens;
  prompts_.clear();
  first_prompt_ = nullptr;
  kept_tokens_ = 0;
  kept_cost_ = 0;
  cost_ = std::numeric_limits<double>::infinity();
  blocks_->BeginStep();
  totals_ = RankStepTotals();
  in_flight_.push_back({.step = plan->step, .work = {}});
  in_flight_.back().work.reserve(running_.size());
  plan->work.reserve(running_.size());
}

void DpRank::SortRunning() {
  const int64_t num_running = std::ssize(running_);
  const bool short_of_blocks =
      blocks().num_free_for({}) < num_running ||
      (blocks_->has_tails() && blocks().num_free_tails_for({}) < num_running);
  if (short_of_blocks) {
    SortForPreemption(&running_);
    by_runs_before_ = false;
  } else if (!by_runs_before_) {
    std::sort(running_.begin(), running_.end(), RunsBefore());
    by_runs_before_ = true;
  }
}

void DpRank::PlanDecodes(std::vector<Sequence*>* preempted) {
  SortRunning();
  // Every running sequence keeps a token; drafts share half of the others with prompts.
  draft_budget_ = std::max<int64_t>(0, budget_ - std::ssize(running_)) / 2;
  // Victims leave from the end of `running_`, so indices before `i` stay valid.
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence* sequence = running_[i];
    if ((!sequence->prefilling && !sequence->plannable()) ||
        sequence->awaits_hand_over()) {
      continue;
    }
    const auto num_named = std::ssize(sequence->blocks);
    if (!EnsureBlocks(sequence, preempted) || sequence->prefilling) {
      continue;
    }
    const int64_t num_drafts = TakeDrafts(sequence);
    NameBlocks(sequence, num_named);
    proto::SlotWork work{.slot = sequence->slot,
                         .from_sample = sequence->unaccepted_samples > 0,
                         .sample = true,
                         .tokens = {},
                         .num_drafts = static_cast<uint32_t>(num_drafts)};
    if (!work.from_sample) {
      work.tokens.push_back(sequence->tokens.back());
    }
    sequence->tenant->Charge(1 + num_drafts, /*prefill=*/false);
    RecordWork(sequence, std::move(work), 1 + num_drafts);
  }
}

bool DpRank::EnsureBlocks(Sequence* sequence, std::vector<Sequence*>* preempted) {
  // Of a sequence that prefills, this is the tail block that its chunk names.
  while (!blocks_->GrowByOne(sequence)) {
    if (blocks_->AwaitGrowth(*sequence)) {
      return false;
    }
    Sequence* victim = running_.back();
    Remove(victim);
    preempted->push_back(victim);
    if (victim == sequence) {
      return false;
    }
  }
  return true;
}

int64_t DpRank::TakeDrafts(Sequence* sequence) {
  if (sequence->spec.masked) {
    return 0;  // A mask is known for the next token only.
  }
  // A draft at the last position that the length allows could only be followed by a token
  // too many.
  const int64_t begin = sequence->planned + 1;
  int64_t count = std::min(
      {options_.num_speculative_tokens, draft_budget_, sequence->max_length - begin - 1});
  if (count <= 0) {
    return 0;
  }
  // As with admissions, a block for each running sequence is kept back.
  count = blocks_->GrowForDrafts(sequence, count, std::ssize(running_));
  draft_budget_ -= count;
  return count;
}

void DpRank::NameBlocks(Sequence* sequence, int64_t num_named) {
  proto::BlockAppend append{
      .slot = sequence->slot,
      .blocks = {sequence->blocks.begin() + num_named, sequence->blocks.end()},
      .tail_blocks = SequenceBlocks::TakeUnnamedTail(sequence)};
  if (!append.blocks.empty() || !append.tail_blocks.empty()) {
    plan_->appends.push_back(std::move(append));
  }
}

void DpRank::NameRestores(bool bounded) {
  restores_left_ = bounded && options_.max_restores > 0
                       ? options_.max_restores
                       : std::numeric_limits<int64_t>::max();
  std::vector<Sequence*> waiting;
  for (Sequence* sequence : running_) {
    if (sequence->restoring) {
      waiting.push_back(sequence);
    }
  }
  if (waiting.empty()) {
    return;
  }
  // As with tokens: a part for the one that came first, then those that lack least.
  const int64_t kept = std::max<int64_t>(1, restores_left_ / kFirstPromptShare);
  int64_t left = kept;
  blocks_->Restore(*std::min_element(waiting.begin(), waiting.end(), CameFirst), &left);
  restores_left_ -= kept - left;
  std::sort(waiting.begin(), waiting.end(), [&](const Sequence* a, const Sequence* b) {
    const int64_t lacks_a = a->computed - a->num_restored * options_.block_size;
    const int64_t lacks_b = b->computed - b->num_restored * options_.block_size;
    return lacks_a != lacks_b ? lacks_a < lacks_b : a->order < b->order;
  });
  for (Sequence* sequence : waiting) {
    blocks_->Restore(sequence, &restores_left_);
  }
}

void DpRank::BeginPrefills(bool bounded) {
  NameRestores(bounded);
  for (Sequence* sequence : running_) {
    if (sequence->prefilling && !sequence->restoring && sequence->num_known() > 0) {
      prompts_.push_back(sequence);
    }
  }
  if (bounded && options_.prefill_cost_tokens > 0) {
    cost_ = static_cast<double>(budget_);
  }
  const auto first = std::min_element(prompts_.begin(), prompts_.end(), CameFirst);
  if (first == prompts_.end()) {
    return;
  }
  first_prompt_ = *first;
  kept_tokens_ = std::min(std::max<int64_t>(1, budget_ / kFirstPromptShare),
                          first_prompt_->num_known());
  if (cost_ < std::numeric_limits<double>::infinity()) {
    kept_cost_ = std::min(cost_ / kFirstPromptShare,
                          static_cast<double>(kept_tokens_) * TokenCost(*first_prompt_));
  }
}

Sequence* DpRank::NextPrefill() const {
  const auto best = std::min_element(prompts_.begin(), prompts_.end(), PrefillsBefore());
  return best == prompts_.end() || !shares_tokens() ? nullptr : *best;
}

void DpRank::PlanPrefill(Sequence* sequence) {
  std::erase(prompts_, sequence);
  if (sequence == first_prompt_) {
    first_prompt_ = nullptr;
    kept_tokens_ = 0;
    kept_cost_ = 0;
  }
  PlanChunk(sequence, kept_tokens_, kept_cost_);
}

void DpRank::FinishPrefills() {
  if (first_prompt_ != nullptr && budget_ > 0) {
    PlanPrefill(first_prompt_);
  }
}

double DpRank::TokenCost(const Sequence& sequence) const {
  return 1 + static_cast<double>(sequence.planned) /
                 static_cast<double>(options_.prefill_cost_tokens);
}

void DpRank::PlanChunk(Sequence* sequence, int64_t kept_tokens, double kept_cost) {
  int64_t limit = std::min(budget_ - kept_tokens, sequence->num_known());
  const bool bounded = cost_ < std::numeric_limits<double>::infinity();
  if (bounded) {
    const double tokens = (cost_ - kept_cost) / TokenCost(*sequence);
    limit = std::min(limit, std::max(static_cast<int64_t>(tokens), kMinChunkTokens));
  }
  // As with admissions, a tail block for each running sequence is kept back.
  const int64_t count = blocks_->GrowTail(sequence, limit, std::ssize(running_));
  if (count == 0) {
    return;  // It waits for tail blocks.
  }
  TESSERA_CHECK_LT(0, count);
  if (bounded) {
    cost_ -= static_cast<double>(count) * TokenCost(*sequence);
  }
  std::vector<BlockId> tail_blocks = SequenceBlocks::TakeUnnamedTail(sequence);
  if (!tail_blocks.empty()) {
    plan_->appends.push_back(
        {.slot = sequence->slot, .blocks = {}, .tail_blocks = std::move(tail_blocks)});
  }
  const bool last = sequence->planned + count == sequence->num_tokens();
  proto::SlotWork work{
      .slot = sequence->slot, .from_sample = false, .sample = last, .tokens = {}};
  const auto begin = sequence->tokens.begin() + sequence->planned;
  work.tokens.assign(begin, begin + count);
  if (!last) {
    work.next_token = *(begin + count);
  }
  sequence->prefilling = !last;
  totals_.num_prefill_tokens += count;
  sequence->tenant->Charge(count, /*prefill=*/true);
  RecordWork(sequence, std::move(work), count);
}

void DpRank::RecordWork(Sequence* sequence, proto::SlotWork work, int64_t num_tokens) {
  work.masked = work.sample && sequence->spec.masked;
  if (work.masked) {
    totals_.masked.push_back({.sequence = sequence->spec.id, .slot = work.slot});
  }
  blocks_->BeforeWork(*sequence, sequence->planned, sequence->planned + num_tokens);
  sequence->planned += num_tokens;
  sequence->unaccepted_samples += work.sample ? 1 : 0;
  ++sequence->steps_in_flight;
  sequence->last_step = plan_->step;
  budget_ -= num_tokens;
  totals_.num_tokens += num_tokens;
  ++totals_.num_sequences;
  in_flight_.back().work.push_back({.sequence = sequence,
                                    .slot = work.slot,
                                    .num_tokens = num_tokens,
                                    .num_drafts = work.num_drafts,
                                    .sample = work.sample,
                                    .last_sample_position = sequence->planned});
  plan_->work.push_back(std::move(work));
}

int64_t DpRank::blocks_for_admission(const PrefixMatch& match) const {
  return match.num_spare - std::ssize(running_);
}

routing::DpRankLoad DpRank::LoadFor(const PrefixMatch& match) const {
  return {.has_free_slot = has_free_slot(),
          .pending_tokens = pending_tokens(),
          .num_sequences = std::ssize(running_),
          .blocks_used = blocks().num_used(),
          .blocks_free = blocks_for_admission(match),
          .cached_tokens = std::ssize(match.blocks) * options_.block_size};
}

bool DpRank::HasTailRoom(const PrefixMatch& match) const {
  return !blocks_->has_tails() || match.num_spare_tails > std::ssize(running_);
}

bool DpRank::HasBlocksFor(const Sequence& sequence) const {
  const PrefixMatch match = Match(sequence);
  const int64_t num_blocks = sequence.num_blocks(options_.block_size);
  return HasTailRoom(match) &&
         num_blocks - std::ssize(match.blocks) <= blocks_for_admission(match);
}

bool DpRank::WillHaveBlocksFor(const Sequence& sequence,
                               std::span<Sequence* const> leaving) const {
  const PrefixMatch match = Match(sequence);
  absl::flat_hash_map<BlockId, int32_t> left;  // references that go
  int64_t num_tails = match.num_spare_tails;
  for (const Sequence* other : leaving) {
    for (const BlockId block : other->blocks) {
      ++left[block];
    }
    num_tails += std::ssize(other->tail.blocks);
  }
  for (const BlockId block : match.blocks) {
    left.erase(block);  // The sequence itself holds it then.
  }
  // A block that others share stays.
  const int64_t num_left =
      std::count_if(left.begin(), left.end(), [&](const auto& entry) {
        return blocks().reference_count(entry.first) == entry.second;
      });
  const int64_t num_kept = std::ssize(running_) - std::ssize(leaving);
  const int64_t num_blocks = sequence.num_blocks(options_.block_size);
  return (!blocks_->has_tails() || num_tails > num_kept) &&
         num_blocks - std::ssize(match.blocks) + num_kept <=
             match.num_spare + num_left + num_deferred_blocks();
}

uint32_t DpRank::TakeSlot() {
  TESSERA_CHECK(!free_slots_.empty());
  const uint32_t slot = free_slots_.back();
  free_slots_.pop_back();
  return slot;
}

void DpRank::Admit(Sequence* sequence, PrefixMatch match) {
  TESSERA_CHECK(!sequence->running() && sequence->steps_in_flight == 0);
  sequence->dp_rank = dp_rank_;
  sequence->slot = TakeSlot();
  const HitTokens hit = blocks_->Admit(sequence, std::move(match));
  const int64_t start = sequence->computed;
  if (!sequence->started) {
    sequence->cached_tokens = start;
    sequence->host_cached_tokens = hit.host;
    sequence->disk_cached_tokens = hit.disk;
  }
  sequence->asked_disk = false;
  sequence->prefilling = true;
  sequence->started = true;
  sequence->tenant->Enter(*sequence);
  running_.insert(by_runs_before_ ? std::upper_bound(running_.begin(), running_.end(),
                                                     sequence, RunsBefore())
                                  : running_.end(),
                  sequence);

  proto::SlotAdmission admission{
      .slot = sequence->slot,
      .history = {sequence->tokens.begin(), sequence->tokens.begin() + start},
      .prompt_length = static_cast<uint32_t>(sequence->prompt_length),
      .blocks = sequence->blocks,
      .tail_begin =
          blocks_->has_tails() ? static_cast<uint32_t>(sequence->tail.begin) : 0,
      .tail_blocks = sequence->tail.blocks,
      .sampling = sequence->spec.sampling};
  plan_->admissions.push_back(std::move(admission));
  blocks_->Restore(sequence, &restores_left_);
  if (!sequence->restoring && sequence->num_known() > 0) {
    PlanChunk(sequence, kept_tokens_, kept_cost_);
  }
}

void DpRank::AdmitProbe(int32_t token) {
  std::vector<BlockId> blocks;
  std::vector<BlockId> tail_blocks;
  blocks_->TakeForProbe(plan_->step, &blocks, &tail_blocks);
  const uint32_t slot = TakeSlot();
  proto::SamplingParams greedy;
  greedy.temperature = 0;
  plan_->admissions.push_back({.slot = slot,
                               .history = {},
                               .prompt_length = 1,
                               .blocks = std::move(blocks),
                               .tail_begin = 0,
                               .tail_blocks = std::move(tail_blocks),
                               .sampling = greedy});
  plan_->work.push_back(
      {.slot = slot, .from_sample = false, .sample = true, .tokens = {token}});
  in_flight_.back().work.push_back({.sequence = nullptr,
                                    .slot = slot,
                                    .num_tokens = 1,
                                    .num_drafts = 0,
                                    .sample = true,
                                    .last_sample_position = 1});
  // The next plan names the release before it can name the slot again.
  probe_slots_.push_back(slot);
  free_slots_.push_back(slot);
  totals_ = {.num_tokens = 1, .num_prefill_tokens = 1, .num_sequences = 1, .masked = {}};
}

RankStepTotals DpRank::EndPlan() {
  blocks_->NameCopies(plan_);
  plan_->releases = std::move(pending_releases_);
  pending_releases_ = std::move(probe_slots_);
  probe_slots_.clear();
  plan_ = nullptr;
  return std::move(totals_);
}

Sequence* DpRank::FindWorse(int32_t priority) const {
  const auto worst = std::max_element(running_.begin(), running_.end(), RunsBefore());
  return worst == running_.end() || (*worst)->spec.priority <= priority ? nullptr
                                                                        : *worst;
}

void DpRank::Remove(Sequence* sequence) {
  const auto found = std::find(running_.begin(), running_.end(), sequence);
  TESSERA_CHECK(found != running_.end());
  running_.erase(found);
  pending_releases_.push_back(sequence->slot);
  free_slots_.push_back(sequence->slot);
  blocks_->Release(sequence);
  sequence->tenant->Leave(*sequence);
  sequence->LeaveRank();
}

absl::Status DpRank::CheckResult(uint64_t epoch, const proto::StepResult& result) const {
  if (in_flight_.empty()) {
    return InternalF("result of step {} and no step in flight", result.step);
  }
  const PlannedRankStep& planned = in_flight_.front();
  if (result.epoch != epoch || result.step != planned.step) {
    return InternalF("result of epoch {} step {}, expected epoch {} step {}",
                     result.epoch, result.step, epoch, planned.step);
  }
  TESSERA_RETURN_IF_ERROR(blocks().CheckDiskReport(result.disk_done, result.disk_failed));
  return CheckSamples(planned, result);
}

void DpRank::Accept(const PrefixHash& hash, const proto::StepResult& result,
                    std::vector<AcceptedToken>* accepted) {
  const PlannedRankStep planned = std::move(in_flight_.front());
  in_flight_.pop_front();
  size_t num_samples = 0;
  for (const PlannedWork& work : planned.work) {
    const Samples samples =
        work.sample ? FindSamples(result, work.slot, num_samples) : Samples();
    num_samples += samples.size();
    Sequence* sequence = work.sequence;
    if (sequence == nullptr) {
      continue;
    }
    --sequence->steps_in_flight;
    sequence->unaccepted_samples -= work.sample ? 1 : 0;
    if (sequence->finished) {
      continue;
    }
    if (!result.prompt.empty()) {
      TakePromptScores(result, work);
    }
    TakeSamples(sequence, samples, accepted);
    // What the plan reserved for drafts that were refused, or never made.
    const int64_t refused = work.sample ? 1 + work.num_drafts - std::ssize(samples) : 0;
    if (sequence->running()) {
      sequence->planned -= refused;
      sequence->computed += work.num_tokens - refused;
      blocks_->TakeComputed(hash, sequence);
    } else {
      // Preempted in the meantime: it has no blocks to register, but its tokens stand.
      sequence->lost_tokens += work.num_tokens - refused;
    }
  }
  blocks_->ReleaseDeferred(planned.step);
  blocks_->TakeDiskReport(result);
}

void DpRank::TakeSamples(Sequence* sequence, Samples samples,
                         std::vector<AcceptedToken>* accepted) {
  for (const proto::SampledToken& sampled : samples) {
    if (!sequence->takes_tokens()) {
      return;
    }
    sequence->tokens.push_back(sampled.token);
    sequence->handed_over = false;
    accepted->push_back({.sequence = sequence->spec.id,
                         .index = static_cast<int32_t>(sequence->num_tokens() -
                                                       sequence->prompt_length - 1),
                         .sampled = sampled,
                         .length_reached = !sequence->takes_tokens(),
                         .prompt = std::exchange(sequence->prompt_scores, {})});
  }
}

int64_t DpRank::pending_tokens() const {
  int64_t count = 0;
  for (const Sequence* sequence : running_) {
    count += sequence->prefilling ? sequence->num_known() : 0;
  }
  return count;
}

bool DpRank::has_work() const {
  return std::any_of(running_.begin(), running_.end(), [](const Sequence* sequence) {
    return sequence->plannable() &&
           (sequence->restoring || !sequence->awaits_hand_over());
  });
}

void DpRank::AddTo(SchedulerStats* stats) const {
  const BlockManager& manager = blocks();
  stats->num_running += std::ssize(running_);
  stats->blocks_total += manager.num_blocks();
  stats->blocks_used += manager.num_used();
  stats->blocks_cached += manager.num_cached();
  stats->tail_blocks_total += manager.tail_pool().num_blocks();
  stats->tail_blocks_used += manager.tail_pool().num_used();
  stats->tail_blocks_cached += manager.tail_pool().num_cached();
  const BlockPool& host = manager.host().blocks();
  const BlockPool& tails = manager.host().tails();
  stats->host_blocks_total += host.num_blocks();
  stats->host_blocks_cached += host.num_cached() + host.num_used();
  stats->host_tail_blocks_total += tails.num_blocks();
  stats->host_tail_blocks_cached += tails.num_cached() + tails.num_used();
  const HostTier& disk = manager.disk().contents();
  stats->disk_blocks_total += disk.blocks().num_blocks();
  stats->disk_blocks_cached += disk.blocks().num_cached() + disk.blocks().num_used();
  stats->disk_tail_blocks_total += disk.tails().num_blocks();
  stats->disk_tail_blocks_cached += disk.tails().num_cached() + disk.tails().num_used();
  stats->tiers.Add(blocks_->totals());
}

absl::Status DpRank::CheckInvariants() const {
  TESSERA_RETURN_IF_ERROR(blocks_->CheckInvariants(running_));
  const int64_t num_slots =
      std::min(options_.max_num_seqs, options_.max_num_batched_tokens);
  if (std::ssize(free_slots_) + std::ssize(running_) != num_slots) {
    return InternalF("{} free and {} running slots, expected {}", free_slots_.size(),
                     running_.size(), num_slots);
  }
  return absl::OkStatus();
}

}  // namespace tessera::coordinator
