#include "coordinator/scheduler/dp_rank.h"

#include <algorithm>
#include <span>
#include <string_view>
#include <utility>

#include "absl/functional/function_ref.h"

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::coordinator {
namespace {

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// References that sequences and plans hold, counted anew.
class ReferenceCounts {
 public:
  explicit ReferenceCounts(int64_t num_blocks)
      : counts_(static_cast<size_t>(num_blocks), 0) {}

  void Add(const std::vector<BlockId>& blocks) {
    for (const BlockId block : blocks) {
      ++counts_[block];
    }
  }

  absl::Status Compare(std::string_view kind,
                       absl::FunctionRef<int32_t(BlockId)> held) const {
    for (size_t block = 0; block < counts_.size(); ++block) {
      const int32_t count = held(static_cast<BlockId>(block));
      if (counts_[block] != count) {
        return InternalF("{} {} has {} references, expected {}", kind, block, count,
                         counts_[block]);
      }
    }
    return absl::OkStatus();
  }

 private:
  std::vector<int32_t> counts_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<DpRank>> DpRank::Create(const SchedulerOptions& options,
                                                       int dp_rank) {
  TESSERA_ASSIGN_OR_RETURN(
      std::unique_ptr<BlockManager> blocks,
      BlockManager::Create({.num_blocks = options.num_blocks,
                            .block_size = options.block_size,
                            .enable_prefix_caching = options.enable_prefix_caching,
                            .num_tail_blocks = options.num_tail_blocks,
                            .tail_tokens = options.tail_tokens}));
  return std::unique_ptr<DpRank>(new DpRank(options, dp_rank, std::move(blocks)));
}

DpRank::DpRank(const SchedulerOptions& options, int dp_rank,
               std::unique_ptr<BlockManager> blocks)
    : options_(options), dp_rank_(dp_rank), blocks_(std::move(blocks)) {
  Reset();
}

void DpRank::Reset() {
  blocks_->Reset();
  // No more slots in use than tokens in a step: every decode then gets its token in every
  // step, and a sequence that prefills always finds at least one left.
  const int64_t num_slots =
      std::min(options_.max_num_seqs, options_.max_num_batched_tokens);
  free_slots_.clear();
  for (int64_t slot = num_slots - 1; slot >= 0; --slot) {
    free_slots_.push_back(static_cast<uint32_t>(slot));
  }
  pending_releases_.clear();
  probe_slots_.clear();
  running_.clear();
  deferred_.clear();
  in_flight_.clear();
}

void DpRank::BeginPlan(proto::StepPlan* plan) {
  TESSERA_CHECK(plan_ == nullptr);
  plan_ = plan;
  budget_ = options_.max_num_batched_tokens;
  num_awaited_blocks_ = num_awaited_tails_ = 0;
  totals_ = RankStepTotals();
  in_flight_.push_back({.step = plan->step, .work = {}});
  in_flight_.back().work.reserve(running_.size());
  plan->work.reserve(running_.size());
}

void DpRank::PlanDecodes(std::vector<Sequence*>* preempted) {
  // Every running sequence keeps a token; drafts share half of the others with prompts.
  draft_budget_ = std::max<int64_t>(0, budget_ - std::ssize(running_)) / 2;
  // Victims leave from the end of `running_`, so indices before `i` stay valid.
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence* sequence = running_[i];
    if (!sequence->prefilling && !sequence->plannable()) {
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
    RecordWork(sequence, std::move(work), 1 + num_drafts);
  }
}

bool DpRank::EnsureBlocks(Sequence* sequence, std::vector<Sequence*>* preempted) {
  const int64_t block_size = options_.block_size;
  const int64_t blocks =
      sequence->planned < std::ssize(sequence->blocks) * block_size ? 0 : 1;
  const int64_t tails =
      !blocks_->has_tails() || sequence->planned < sequence->tail.end() * block_size ? 0
                                                                                     : 1;
  while (blocks_->num_free() < blocks || blocks_->tail_pool().num_free() < tails) {
    if (AwaitBlocks(std::max<int64_t>(0, blocks - blocks_->num_free()),
                    std::max<int64_t>(0, tails - blocks_->tail_pool().num_free()))) {
      return false;
    }
    Sequence* victim = running_.back();
    Remove(victim);
    preempted->push_back(victim);
    if (victim == sequence) {
      return false;
    }
  }
  // Of a sequence that prefills, `blocks` is 0 and its chunk names the tail block.
  TESSERA_CHECK(blocks_->AllocateTails(tails, &sequence->tail.blocks));
  TESSERA_CHECK(blocks_->Allocate(blocks, &sequence->blocks));
  return true;
}

int64_t DpRank::TakeDrafts(Sequence* sequence) {
  // A draft at the last position that the length allows could only be followed by a token
  // too many.
  const int64_t begin = sequence->planned + 1;
  int64_t count = std::min(
      {options_.num_speculative_tokens, draft_budget_, sequence->max_length - begin - 1});
  if (count <= 0) {
    return 0;
  }
  // As with admissions, a block for each running sequence is kept back.
  const auto room = [&](int64_t num_held, int64_t num_free) {
    const int64_t spare = std::max<int64_t>(0, num_free - std::ssize(running_));
    return (num_held + spare) * options_.block_size - begin;
  };
  count = std::min(count, room(std::ssize(sequence->blocks), blocks_->num_free()));
  if (blocks_->has_tails()) {
    count = std::min(count, room(sequence->tail.end(), blocks_->tail_pool().num_free()));
  }
  const int64_t wanted = CeilDiv(begin + count, options_.block_size);
  TESSERA_CHECK(blocks_->Allocate(
      std::max<int64_t>(0, wanted - std::ssize(sequence->blocks)), &sequence->blocks));
  if (blocks_->has_tails()) {
    TESSERA_CHECK(blocks_->AllocateTails(
        std::max<int64_t>(0, wanted - sequence->tail.end()), &sequence->tail.blocks));
  }
  draft_budget_ -= count;
  return count;
}

void DpRank::NameBlocks(Sequence* sequence, int64_t num_named) {
  proto::BlockAppend append{
      .slot = sequence->slot,
      .blocks = {sequence->blocks.begin() + num_named, sequence->blocks.end()},
      .tail_blocks = TakeUnnamedTail(sequence)};
  if (!append.blocks.empty() || !append.tail_blocks.empty()) {
    plan_->appends.push_back(std::move(append));
  }
}

bool DpRank::AwaitBlocks(int64_t num_blocks, int64_t num_tails) {
  if (num_awaited_blocks_ + num_blocks > num_deferred_blocks() ||
      num_awaited_tails_ + num_tails > num_deferred_tails()) {
    return false;
  }
  num_awaited_blocks_ += num_blocks;
  num_awaited_tails_ += num_tails;
  return true;
}

std::vector<BlockId> DpRank::TakeUnnamedTail(Sequence* sequence) {
  TailTable& tail = sequence->tail;
  std::vector<BlockId> unnamed(tail.blocks.end() - (tail.end() - tail.num_named),
                               tail.blocks.end());
  tail.num_named = tail.end();
  return unnamed;
}

void DpRank::PlanPrefills() {
  for (Sequence* sequence : running_) {
    if (budget_ == 0) {
      return;
    }
    if (sequence->prefilling) {
      PlanChunk(sequence);
    }
  }
}

int64_t DpRank::ExtendTail(Sequence* sequence, int64_t count) {
  if (!blocks_->has_tails()) {
    return count;
  }
  TailTable& tail = sequence->tail;
  const int64_t block_size = options_.block_size;
  const int64_t wanted = CeilDiv(sequence->planned + count, block_size) - tail.end();
  // As with admissions, one for each running sequence is kept back.
  const int64_t spare = blocks_->tail_pool().num_free() - std::ssize(running_);
  const int64_t given = std::clamp<int64_t>(spare, 0, std::max<int64_t>(0, wanted));
  TESSERA_CHECK(blocks_->AllocateTails(given, &tail.blocks));
  return std::min(count, tail.end() * block_size - sequence->planned);
}

void DpRank::PlanChunk(Sequence* sequence) {
  const int64_t count = ExtendTail(sequence, std::min(budget_, sequence->num_known()));
  if (count == 0) {
    return;  // It waits for tail blocks.
  }
  TESSERA_CHECK_LT(0, count);
  std::vector<BlockId> tail_blocks = TakeUnnamedTail(sequence);
  if (!tail_blocks.empty()) {
    plan_->appends.push_back(
        {.slot = sequence->slot, .blocks = {}, .tail_blocks = std::move(tail_blocks)});
  }
  const bool last = count == sequence->num_known();
  proto::SlotWork work{
      .slot = sequence->slot, .from_sample = false, .sample = last, .tokens = {}};
  const auto begin = sequence->tokens.begin() + sequence->planned;
  work.tokens.assign(begin, begin + count);
  if (!last && options_.num_speculative_tokens > 0) {
    work.next_token = *(begin + count);
  }
  sequence->prefilling = !last;
  totals_.num_prefill_tokens += count;
  RecordWork(sequence, std::move(work), count);
}

void DpRank::RecordWork(Sequence* sequence, proto::SlotWork work, int64_t num_tokens) {
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

PrefixMatch DpRank::Match(const Sequence& sequence) const {
  return blocks_->Match(
      sequence.query((sequence.num_tokens() - 1) / options_.block_size));
}

int64_t DpRank::blocks_for_admission(const PrefixMatch& match) const {
  return blocks_->num_free() - match.num_unreferenced - std::ssize(running_);
}

bool DpRank::HasTailRoom(const PrefixMatch& match) const {
  return !blocks_->has_tails() || blocks_->tail_pool().num_free() -
                                          match.num_unreferenced_tails -
                                          std::ssize(running_) >
                                      0;
}

uint32_t DpRank::TakeSlot() {
  TESSERA_CHECK(!free_slots_.empty());
  const uint32_t slot = free_slots_.back();
  free_slots_.pop_back();
  return slot;
}

void DpRank::Admit(Sequence* sequence, const PrefixMatch& match) {
  TESSERA_CHECK(!sequence->running() && sequence->steps_in_flight == 0);
  sequence->dp_rank = dp_rank_;
  sequence->slot = TakeSlot();
  sequence->blocks = match.blocks;
  sequence->cursor = blocks_->Acquire(match);
  // All known tokens get their blocks at once: chunks never wait for blocks half way.
  const int64_t wanted = CeilDiv(sequence->num_tokens(), options_.block_size);
  TESSERA_CHECK(blocks_->Allocate(wanted - std::ssize(match.blocks), &sequence->blocks));
  TailTable& tail = sequence->tail;
  tail.begin = std::ssize(match.blocks) - std::ssize(match.tail_blocks);
  tail.blocks = match.tail_blocks;
  TESSERA_CHECK(blocks_->AllocateTails(blocks_->has_tails() ? 1 : 0, &tail.blocks));
  tail.num_named = tail.end();
  const int64_t start = std::ssize(match.blocks) * options_.block_size;
  sequence->planned = sequence->computed = start;
  sequence->cached_tokens = std::min(start, sequence->prompt_length);
  sequence->prefilling = true;
  sequence->started = true;
  running_.insert(
      std::upper_bound(running_.begin(), running_.end(), sequence, RunsBefore()),
      sequence);

  proto::SlotAdmission admission{
      .slot = sequence->slot,
      .history = {sequence->tokens.begin(), sequence->tokens.begin() + start},
      .prompt_length = static_cast<uint32_t>(sequence->prompt_length),
      .blocks = sequence->blocks,
      .tail_begin = blocks_->has_tails() ? static_cast<uint32_t>(tail.begin) : 0,
      .tail_blocks = tail.blocks,
      .sampling = sequence->spec.sampling};
  plan_->admissions.push_back(std::move(admission));
  PlanChunk(sequence);
}

void DpRank::AdmitProbe(int32_t token) {
  std::vector<BlockId> blocks;
  std::vector<BlockId> tail_blocks;
  TESSERA_CHECK(blocks_->Allocate(1, &blocks));
  TESSERA_CHECK(blocks_->AllocateTails(blocks_->has_tails() ? 1 : 0, &tail_blocks));
  const uint32_t slot = TakeSlot();
  proto::SamplingParams greedy;
  greedy.temperature = 0;
  plan_->admissions.push_back({.slot = slot,
                               .history = {},
                               .prompt_length = 1,
                               .blocks = blocks,
                               .tail_begin = 0,
                               .tail_blocks = tail_blocks,
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
  deferred_.push_back({.step = plan_->step,
                       .blocks = std::move(blocks),
                       .tail_blocks = std::move(tail_blocks)});
  totals_ = {.num_tokens = 1, .num_prefill_tokens = 1, .num_sequences = 1};
}

RankStepTotals DpRank::EndPlan() {
  plan_->releases = std::move(pending_releases_);
  pending_releases_ = std::move(probe_slots_);
  probe_slots_.clear();
  plan_ = nullptr;
  return totals_;
}

void DpRank::Remove(Sequence* sequence) {
  const auto found = std::find(running_.begin(), running_.end(), sequence);
  TESSERA_CHECK(found != running_.end());
  running_.erase(found);
  pending_releases_.push_back(sequence->slot);
  free_slots_.push_back(sequence->slot);
  ReleaseBlocks(sequence);
  sequence->LeaveRank();
}

void DpRank::ReleaseBlocks(Sequence* sequence) {
  if (sequence->steps_in_flight > 0) {
    deferred_.push_back({.step = sequence->last_step,
                         .blocks = std::move(sequence->blocks),
                         .tail_blocks = std::move(sequence->tail.blocks)});
  } else {
    blocks_->Release(sequence->blocks);
    blocks_->ReleaseTails(sequence->tail.blocks);
  }
}

int64_t DpRank::FirstTail(int64_t position) const {
  return std::max<int64_t>(0, position - options_.tail_tokens) / options_.block_size;
}

void DpRank::ReleasePassedTail(Sequence* sequence) {
  TailTable& tail = sequence->tail;
  const int64_t count = FirstTail(sequence->computed) - tail.begin;
  if (!blocks_->has_tails() || count <= 0) {
    return;
  }
  blocks_->ReleaseTails(std::span(tail.blocks).first(static_cast<size_t>(count)));
  tail.blocks.erase(tail.blocks.begin(), tail.blocks.begin() + count);
  tail.begin += count;
}

int64_t DpRank::num_deferred_blocks() const {
  int64_t count = 0;
  for (const DeferredRelease& release : deferred_) {
    count += std::ssize(release.blocks);
  }
  return count;
}

int64_t DpRank::num_deferred_tails() const {
  int64_t count = 0;
  for (const DeferredRelease& release : deferred_) {
    count += std::ssize(release.tail_blocks);
  }
  // And those that running sequences leave behind with their steps in flight.
  for (const Sequence* sequence : running_) {
    count += std::max<int64_t>(0, FirstTail(sequence->planned) - sequence->tail.begin);
  }
  return count;
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
    TakeSamples(sequence, samples, accepted);
    // A sequence preempted in the meantime has no blocks to register, but its tokens
    // stand.
    if (sequence->running()) {
      // What the plan reserved for drafts that were refused, or never made.
      const int64_t refused = work.sample ? 1 + work.num_drafts - std::ssize(samples) : 0;
      sequence->planned -= refused;
      sequence->computed += work.num_tokens - refused;
      RegisterFilled(hash, sequence);
      ReleasePassedTail(sequence);
    }
  }
  std::erase_if(deferred_, [&](const DeferredRelease& release) {
    if (release.step > planned.step) {
      return false;
    }
    blocks_->Release(release.blocks);
    blocks_->ReleaseTails(release.tail_blocks);
    return true;
  });
}

void DpRank::TakeSamples(Sequence* sequence, Samples samples,
                         std::vector<AcceptedToken>* accepted) {
  for (const proto::SampledToken& sampled : samples) {
    if (!sequence->takes_tokens()) {
      return;
    }
    sequence->tokens.push_back(sampled.token);
    accepted->push_back({.sequence = sequence->spec.id,
                         .index = static_cast<int32_t>(sequence->num_tokens() -
                                                       sequence->prompt_length - 1),
                         .sampled = sampled,
                         .length_reached = !sequence->takes_tokens()});
  }
}

void DpRank::RegisterFilled(const PrefixHash& hash, Sequence* sequence) {
  const int64_t num_full = sequence->computed / options_.block_size;
  if (!options_.enable_prefix_caching || sequence->cursor.broken ||
      num_full <= sequence->cursor.num_blocks) {
    return;
  }
  hash.ExtendAll(sequence->root, sequence->tokens, options_.block_size, &sequence->keys);
  const PrefixQuery query = sequence->query(num_full);
  while (sequence->cursor.num_blocks < num_full && !sequence->cursor.broken) {
    const auto idx = static_cast<size_t>(sequence->cursor.num_blocks);
    blocks_->Register(query, sequence->blocks[idx], &sequence->cursor);
    if (blocks_->has_tails()) {
      // Still there: it holds a token of the step that was just accepted.
      blocks_->KeepTail(
          sequence->cursor,
          sequence->tail.blocks.at(idx - static_cast<size_t>(sequence->tail.begin)));
    }
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
  return std::any_of(running_.begin(), running_.end(),
                     [](const Sequence* sequence) { return sequence->plannable(); });
}

absl::Status DpRank::CheckTable(const Sequence& sequence) const {
  if (sequence.planned > std::ssize(sequence.blocks) * options_.block_size) {
    return InternalF("sequence {} planned {} tokens in {} blocks", sequence.spec.id,
                     sequence.planned, sequence.blocks.size());
  }
  const TailTable& tail = sequence.tail;
  if (blocks_->has_tails() &&
      (sequence.planned > tail.num_named * options_.block_size ||
       tail.num_named > tail.end() || tail.begin != FirstTail(sequence.computed))) {
    return InternalF(
        "sequence {} with {} computed and {} planned tokens holds tail blocks {} to {}, "
        "named up to {}",
        sequence.spec.id, sequence.computed, sequence.planned, tail.begin, tail.end(),
        tail.num_named);
  }
  return absl::OkStatus();
}

absl::Status DpRank::CheckInvariants() const {
  TESSERA_RETURN_IF_ERROR(blocks_->CheckInvariants());
  ReferenceCounts blocks(blocks_->num_blocks());
  ReferenceCounts tails(blocks_->tail_pool().num_blocks());
  for (const Sequence* sequence : running_) {
    TESSERA_RETURN_IF_ERROR(CheckTable(*sequence));
    blocks.Add(sequence->blocks);
    tails.Add(sequence->tail.blocks);
  }
  for (const DeferredRelease& release : deferred_) {
    blocks.Add(release.blocks);
    tails.Add(release.tail_blocks);
  }
  TESSERA_RETURN_IF_ERROR(blocks.Compare(
      "block", [this](BlockId block) { return blocks_->reference_count(block); }));
  TESSERA_RETURN_IF_ERROR(tails.Compare("tail block", [this](BlockId block) {
    return blocks_->tail_pool().reference_count(block);
  }));
  const int64_t num_slots =
      std::min(options_.max_num_seqs, options_.max_num_batched_tokens);
  if (std::ssize(free_slots_) + std::ssize(running_) != num_slots) {
    return InternalF("{} free and {} running slots, expected {}", free_slots_.size(),
                     running_.size(), num_slots);
  }
  return absl::OkStatus();
}

}  // namespace tessera::coordinator
