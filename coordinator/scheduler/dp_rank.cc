#include "coordinator/scheduler/dp_rank.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/status.h"
#include "common/status_macros.h"

namespace tessera::coordinator {
namespace {

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The sample for `slot`, null if there is none. Workers answer in the order of the plan,
// so `hint`, the number of samples asked for before, nearly always finds it.
const proto::SampledToken* FindSample(const proto::StepResult& result, uint32_t slot,
                                      size_t hint) {
  if (hint < result.sampled.size() && result.sampled[hint].slot == slot) {
    return &result.sampled[hint];
  }
  const auto found = std::find_if(
      result.sampled.begin(), result.sampled.end(),
      [&](const proto::SampledToken& sampled) { return sampled.slot == slot; });
  return found == result.sampled.end() ? nullptr : &*found;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DpRank>> DpRank::Create(const SchedulerOptions& options,
                                                       int dp_rank) {
  TESSERA_ASSIGN_OR_RETURN(
      std::unique_ptr<BlockManager> blocks,
      BlockManager::Create({.num_blocks = options.num_blocks,
                            .block_size = options.block_size,
                            .enable_prefix_caching = options.enable_prefix_caching}));
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
  num_awaiting_blocks_ = 0;
  totals_ = RankStepTotals();
  in_flight_.push_back({.step = plan->step, .work = {}});
  in_flight_.back().work.reserve(running_.size());
  plan->work.reserve(running_.size());
}

void DpRank::PlanDecodes(std::vector<Sequence*>* preempted) {
  // Victims leave from the end of `running_`, so indices before `i` stay valid.
  for (size_t i = 0; i < running_.size(); ++i) {
    Sequence* sequence = running_[i];
    if (sequence->prefilling || !sequence->plannable()) {
      continue;
    }
    if (!EnsureDecodeBlock(sequence, preempted)) {
      continue;
    }
    const bool from_sample = sequence->num_known() == 0;
    proto::SlotWork work{
        .slot = sequence->slot, .from_sample = from_sample, .sample = true, .tokens = {}};
    if (!from_sample) {
      work.tokens.push_back(sequence->tokens.back());
    }
    RecordWork(sequence, std::move(work), 1);
  }
}

bool DpRank::EnsureDecodeBlock(Sequence* sequence, std::vector<Sequence*>* preempted) {
  if (sequence->planned < std::ssize(sequence->blocks) * options_.block_size) {
    return true;
  }
  while (blocks_->num_free() == 0) {
    if (num_deferred_blocks() > num_awaiting_blocks_) {
      ++num_awaiting_blocks_;
      return false;
    }
    Sequence* victim = running_.back();
    Remove(victim);
    preempted->push_back(victim);
    if (victim == sequence) {
      return false;
    }
  }
  TESSERA_CHECK(blocks_->Allocate(1, &sequence->blocks));
  plan_->appends.push_back({.slot = sequence->slot, .blocks = {sequence->blocks.back()}});
  return true;
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

void DpRank::PlanChunk(Sequence* sequence) {
  const int64_t count = std::min(budget_, sequence->num_known());
  TESSERA_CHECK_LT(0, count);
  const bool last = count == sequence->num_known();
  proto::SlotWork work{
      .slot = sequence->slot, .from_sample = false, .sample = last, .tokens = {}};
  const auto begin = sequence->tokens.begin() + sequence->planned;
  work.tokens.assign(begin, begin + count);
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
                                    .sample = work.sample,
                                    .sample_position = sequence->planned});
  plan_->work.push_back(std::move(work));
}

PrefixMatch DpRank::Match(const Sequence& sequence) const {
  return blocks_->Match(
      sequence.query((sequence.num_tokens() - 1) / options_.block_size));
}

int64_t DpRank::blocks_for_admission(const PrefixMatch& match) const {
  return blocks_->num_free() - match.num_unreferenced - std::ssize(running_);
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
      .sampling = sequence->spec.sampling};
  plan_->admissions.push_back(std::move(admission));
  PlanChunk(sequence);
}

void DpRank::AdmitProbe(int32_t token) {
  std::vector<BlockId> blocks;
  TESSERA_CHECK(blocks_->Allocate(1, &blocks));
  const uint32_t slot = TakeSlot();
  proto::SamplingParams greedy;
  greedy.temperature = 0;
  plan_->admissions.push_back({.slot = slot,
                               .history = {},
                               .prompt_length = 1,
                               .blocks = blocks,
                               .sampling = greedy});
  plan_->work.push_back(
      {.slot = slot, .from_sample = false, .sample = true, .tokens = {token}});
  in_flight_.back().work.push_back({.sequence = nullptr,
                                    .slot = slot,
                                    .num_tokens = 1,
                                    .sample = true,
                                    .sample_position = 1});
  // The next plan names the release before it can name the slot again.
  probe_slots_.push_back(slot);
  free_slots_.push_back(slot);
  deferred_.push_back({.step = plan_->step, .blocks = std::move(blocks)});
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
  sequence->dp_rank = -1;
  sequence->planned = sequence->computed = 0;
  sequence->prefilling = false;
}

void DpRank::ReleaseBlocks(Sequence* sequence) {
  if (sequence->steps_in_flight > 0) {
    deferred_.push_back(
        {.step = sequence->last_step, .blocks = std::move(sequence->blocks)});
  } else {
    blocks_->Release(sequence->blocks);
  }
  sequence->blocks.clear();
}

int64_t DpRank::num_deferred_blocks() const {
  int64_t count = 0;
  for (const DeferredRelease& release : deferred_) {
    count += std::ssize(release.blocks);
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
  size_t num_samples = 0;
  for (const PlannedWork& work : planned.work) {
    if (!work.sample) {
      continue;
    }
    const proto::SampledToken* sampled = FindSample(result, work.slot, num_samples++);
    if (sampled == nullptr) {
      return InternalF("step {} sampled nothing for slot {}", result.step, work.slot);
    }
    if (sampled->position != work.sample_position || sampled->token < 0) {
      return InternalF(
          "step {} sampled token {} at position {} of slot {}, expected position {}",
          result.step, sampled->token, sampled->position, work.slot,
          work.sample_position);
    }
  }
  if (num_samples != result.sampled.size()) {
    return InternalF("step {} sampled {} tokens, expected {}", result.step,
                     result.sampled.size(), num_samples);
  }
  return absl::OkStatus();
}

void DpRank::Accept(const PrefixHash& hash, const proto::StepResult& result,
                    std::vector<AcceptedToken>* accepted) {
  const PlannedRankStep planned = std::move(in_flight_.front());
  in_flight_.pop_front();
  size_t next_sample = 0;
  for (const PlannedWork& work : planned.work) {
    const proto::SampledToken* sampled =
        work.sample ? FindSample(result, work.slot, next_sample++) : nullptr;
    Sequence* sequence = work.sequence;
    if (sequence == nullptr) {
      continue;
    }
    --sequence->steps_in_flight;
    sequence->unaccepted_samples -= work.sample ? 1 : 0;
    if (sequence->finished) {
      continue;
    }
    if (sampled != nullptr) {
      TESSERA_CHECK_EQ(static_cast<int64_t>(sampled->position), sequence->num_tokens());
      sequence->tokens.push_back(sampled->token);
      accepted->push_back(
          {.sequence = sequence->spec.id,
           .index =
               static_cast<int32_t>(sequence->num_tokens() - sequence->prompt_length - 1),
           .sampled = *sampled,
           .length_reached = sequence->num_tokens() >= sequence->max_length});
    }
    // A sequence preempted in the meantime has no blocks to register, but its token
    // stands.
    if (sequence->running()) {
      sequence->computed += work.num_tokens;
      RegisterFilled(hash, sequence);
    }
  }
  std::erase_if(deferred_, [&](const DeferredRelease& release) {
    if (release.step > planned.step) {
      return false;
    }
    blocks_->Release(release.blocks);
    return true;
  });
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

absl::Status DpRank::CheckInvariants() const {
  TESSERA_RETURN_IF_ERROR(blocks_->CheckInvariants());
  std::vector<int32_t> references(static_cast<size_t>(options_.num_blocks), 0);
  for (const Sequence* sequence : running_) {
    if (sequence->planned > std::ssize(sequence->blocks) * options_.block_size) {
      return InternalF("sequence {} planned {} tokens in {} blocks", sequence->spec.id,
                       sequence->planned, sequence->blocks.size());
    }
    for (const BlockId block : sequence->blocks) {
      ++references[block];
    }
  }
  for (const DeferredRelease& release : deferred_) {
    for (const BlockId block : release.blocks) {
      ++references[block];
    }
  }
  for (size_t block = 0; block < references.size(); ++block) {
    const int32_t held = blocks_->reference_count(static_cast<BlockId>(block));
    if (references[block] != held) {
      return InternalF("block {} has {} references, expected {}", block, held,
                       references[block]);
    }
  }
  const int64_t num_slots =
      std::min(options_.max_num_seqs, options_.max_num_batched_tokens);
  if (std::ssize(free_slots_) + std::ssize(running_) != num_slots) {
    return InternalF("{} free and {} running slots, expected {}", free_slots_.size(),
                     running_.size(), num_slots);
  }
  return absl::OkStatus();
}

}  // namespace tessera::coordinator
