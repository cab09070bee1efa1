#include "coordinator/scheduler/sequence_blocks.h"

#include <algorithm>
#include <string>
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

void TierTotals::Add(const TierTotals& other) {
  host_hit_tokens += other.host_hit_tokens;
  disk_hit_tokens += other.disk_hit_tokens;
  spilled_blocks += other.spilled_blocks;
  fetched_blocks += other.fetched_blocks;
  failed_disk_copies += other.failed_disk_copies;
  disk_waits += other.disk_waits;
  given_up_disk_waits += other.given_up_disk_waits;
  offloaded_blocks += other.offloaded_blocks;
  restored_blocks += other.restored_blocks;
  resumed_tokens += other.resumed_tokens;
  recomputed_tokens += other.recomputed_tokens;
}

absl::StatusOr<std::unique_ptr<SequenceBlocks>> SequenceBlocks::Create(
    const SchedulerOptions& options) {
  BlockManagerOptions blocks = {.num_blocks = options.num_blocks,
                                .block_size = options.block_size,
                                .enable_prefix_caching = options.enable_prefix_caching,
                                .num_tail_blocks = options.num_tail_blocks,
                                .tail_tokens = options.tail_tokens,
                                .num_host_blocks = options.num_host_blocks,
                                .num_host_tail_blocks = options.num_host_tail_blocks,
                                .num_disk_blocks = options.num_disk_blocks,
                                .num_disk_tail_blocks = options.num_disk_tail_blocks,
                                .max_disk_copies = options.max_disk_copies};
  int64_t kept = 0;
  for (const TenantPolicy& tenant : options.tenants) {
    if (tenant.min_cached_blocks != 0) {
      blocks.floors.push_back({tenant.name, tenant.min_cached_blocks});
      kept += tenant.min_cached_blocks;
    }
  }
  TESSERA_ASSIGN_OR_RETURN(std::unique_ptr<BlockManager> manager,
                           BlockManager::Create(blocks));
  const int64_t left = options.num_blocks - kept;
  if (kept > 0 && left < CeilDiv(options.max_model_len, options.block_size)) {
    return InvalidArgumentF(
        "{} of {} kv blocks are kept for tenants, expected to leave {} for one sequence "
        "of {} tokens",
        kept, options.num_blocks, CeilDiv(options.max_model_len, options.block_size),
        options.max_model_len);
  }
  return std::unique_ptr<SequenceBlocks>(new SequenceBlocks(options, std::move(manager)));
}

SequenceBlocks::SequenceBlocks(const SchedulerOptions& options,
                               std::unique_ptr<BlockManager> manager)
    : block_size_(options.block_size),
      tail_tokens_(options.tail_tokens),
      num_speculative_tokens_(options.num_speculative_tokens),
      enable_prefix_caching_(options.enable_prefix_caching),
      manager_(std::move(manager)) {}

void SequenceBlocks::Reset() {
  manager_->Reset();
  deferred_.clear();
  holders_.clear();
  BeginStep();
}

PrefixQuery SequenceBlocks::QueryOf(const Sequence& sequence) const {
  // Positions that are not computed have no logits to score the prompt from.
  const bool all_computed = sequence.spec.sampling.num_prompt_logprobs >= 0;
  return sequence.query(all_computed ? 0 : (sequence.num_tokens() - 1) / block_size_);
}

PrefixMatch SequenceBlocks::Match(const Sequence& sequence) const {
  return manager_->Match(QueryOf(sequence));
}

DiskPrefix SequenceBlocks::MatchDisk(const Sequence& sequence) const {
  return manager_->MatchDisk(QueryOf(sequence));
}

HitTokens SequenceBlocks::Admit(Sequence* sequence, PrefixMatch match) {
  const std::string& tenant = sequence->spec.tenant;
  sequence->cursor = manager_->Acquire(tenant, &match);
  const int64_t num_matched = std::ssize(match.blocks);
  const HitTokens hit = CountHit(*sequence, match);
  sequence->blocks = std::move(match.blocks);
  // All known tokens get their blocks at once: chunks never wait for blocks half way.
  const int64_t wanted = CeilDiv(sequence->num_tokens(), block_size_);
  TESSERA_CHECK(manager_->Allocate(wanted - num_matched, &sequence->blocks, tenant));
  TailTable& tail = sequence->tail;
  tail.begin = num_matched - std::ssize(match.tail_blocks);
  tail.blocks = std::move(match.tail_blocks);
  TESSERA_CHECK(manager_->AllocateTails(has_tails() ? 1 : 0, &tail.blocks, tenant));
  tail.num_named = tail.end();
  sequence->planned = sequence->computed = num_matched * block_size_;
  sequence->restoring = num_matched > 0;
  sequence->num_restored = 0;
  sequence->lost_tokens = 0;
  if (has_tails()) {
    holders_.push_back(sequence);
  }
  return hit;
}

void SequenceBlocks::Restore(Sequence* sequence, int64_t* limit) {
  const int64_t num_matched = sequence->computed / block_size_;
  const auto wanted =
      std::span(sequence->blocks)
          .subspan(static_cast<size_t>(sequence->num_restored),
                   static_cast<size_t>(num_matched - sequence->num_restored));
  sequence->num_restored += manager_->NameRestores(wanted, limit);
  if (sequence->num_restored < num_matched) {
    return;
  }
  int64_t num_tails = 0;
  if (has_tails()) {
    num_tails = num_matched - sequence->tail.begin;
  }
  const auto tails =
      std::span(sequence->tail.blocks).first(static_cast<size_t>(num_tails));
  sequence->restoring = manager_->NameTailRestores(tails, limit) < num_tails;
}

void SequenceBlocks::BeforeWork(const Sequence& sequence, int64_t begin, int64_t end) {
  const auto part = [&](const std::vector<BlockId>& blocks, int64_t first_held) {
    const int64_t last = CeilDiv(end + num_speculative_tokens_ + 1, block_size_);
    const int64_t held_end = first_held + std::ssize(blocks);
    const int64_t first = std::clamp(begin / block_size_, first_held, held_end);
    return std::span(blocks).subspan(
        static_cast<size_t>(first - first_held),
        static_cast<size_t>(std::clamp(last, first, held_end) - first));
  };
  manager_->BeforeWrite(part(sequence.blocks, 0));
  manager_->BeforeTailWrite(part(sequence.tail.blocks, sequence.tail.begin));
}

HitTokens SequenceBlocks::CountHit(const Sequence& sequence, const PrefixMatch& match) {
  const HitTokens hit = {
      .host = (std::ssize(match.host_blocks) - match.num_from_disk) * block_size_,
      .disk = match.num_from_disk * block_size_};
  if (sequence.handed_over) {
    return hit;  // Neither a hit nor lost: it was moved.
  }
  totals_.host_hit_tokens += static_cast<uint64_t>(hit.host);
  totals_.disk_hit_tokens += static_cast<uint64_t>(hit.disk);
  const auto lost = static_cast<uint64_t>(sequence.lost_tokens);
  const auto found = static_cast<uint64_t>(std::ssize(match.blocks) * block_size_);
  const uint64_t resumed = std::min(lost, found);
  totals_.resumed_tokens += resumed;
  totals_.recomputed_tokens += lost - resumed;
  return hit;
}

void SequenceBlocks::TakeDiskReport(const proto::StepResult& result) {
  totals_.failed_disk_copies +=
      manager_->TakeDiskReport(result.disk_done, result.disk_failed);
}

void SequenceBlocks::BeginStep() {
  manager_->BeginPlan();
  num_awaited_blocks_ = num_awaited_tails_ = 0;
}

void SequenceBlocks::NameCopies(proto::StepPlan* plan) {
  const TierCopies copies = manager_->TakeCopies();
  const auto append = [](const std::vector<std::pair<BlockId, BlockId>>& from, bool tail,
                         std::vector<proto::BlockCopy>* to) {
    for (const auto& [device, host] : from) {
      to->push_back({.device = device, .host = host, .tail = tail});
    }
  };
  append(copies.blocks.offloads, false, &plan->offloads);
  append(copies.tails.offloads, true, &plan->offloads);
  append(copies.blocks.restores, false, &plan->restores);
  append(copies.tails.restores, true, &plan->restores);
  for (const SlotCopy& copy : copies.disk) {
    plan->disk_copies.push_back({.host = copy.host,
                                 .slot = copy.slot,
                                 .content = copy.serial,
                                 .tail = copy.tail,
                                 .fetch = copy.fetch});
    ++(copy.fetch ? totals_.fetched_blocks : totals_.spilled_blocks);
  }
  totals_.offloaded_blocks += plan->offloads.size();
  totals_.restored_blocks += plan->restores.size();
}

SequenceBlocks::Growth SequenceBlocks::Wanted(const Sequence& sequence) const {
  Growth wanted;
  wanted.blocks = sequence.planned < std::ssize(sequence.blocks) * block_size_ ? 0 : 1;
  wanted.tails =
      !has_tails() || sequence.planned < sequence.tail.end() * block_size_ ? 0 : 1;
  return wanted;
}

bool SequenceBlocks::GrowByOne(Sequence* sequence) {
  const Growth wanted = Wanted(*sequence);
  const std::string& tenant = sequence->spec.tenant;
  if (manager_->num_free_for(tenant) < wanted.blocks ||
      manager_->num_free_tails_for(tenant) < wanted.tails) {
    return false;
  }
  TESSERA_CHECK(manager_->AllocateTails(wanted.tails, &sequence->tail.blocks, tenant));
  TESSERA_CHECK(manager_->Allocate(wanted.blocks, &sequence->blocks, tenant));
  return true;
}

bool SequenceBlocks::AwaitGrowth(const Sequence& sequence) {
  const Growth wanted = Wanted(sequence);
  const std::string& tenant = sequence.spec.tenant;
  const int64_t blocks =
      std::max<int64_t>(0, wanted.blocks - manager_->num_free_for(tenant));
  const int64_t tails =
      std::max<int64_t>(0, wanted.tails - manager_->num_free_tails_for(tenant));
  if (num_awaited_blocks_ + blocks > num_deferred() ||
      num_awaited_tails_ + tails > num_deferred_tails()) {
    return false;
  }
  num_awaited_blocks_ += blocks;
  num_awaited_tails_ += tails;
  return true;
}

int64_t SequenceBlocks::GrowForDrafts(Sequence* sequence, int64_t count,
                                      int64_t num_kept) {
  const std::string& tenant = sequence->spec.tenant;
  const int64_t begin = sequence->planned + 1;
  const auto room = [&](int64_t num_held, int64_t num_free) {
    const int64_t spare = std::max<int64_t>(0, num_free - num_kept);
    return (num_held + spare) * block_size_ - begin;
  };
  count =
      std::min(count, room(std::ssize(sequence->blocks), manager_->num_free_for(tenant)));
  if (has_tails()) {
    count =
        std::min(count, room(sequence->tail.end(), manager_->num_free_tails_for(tenant)));
  }
  const int64_t wanted = CeilDiv(begin + count, block_size_);
  TESSERA_CHECK(
      manager_->Allocate(std::max<int64_t>(0, wanted - std::ssize(sequence->blocks)),
                         &sequence->blocks, tenant));
  if (has_tails()) {
    TESSERA_CHECK(
        manager_->AllocateTails(std::max<int64_t>(0, wanted - sequence->tail.end()),
                                &sequence->tail.blocks, tenant));
  }
  return count;
}

int64_t SequenceBlocks::GrowTail(Sequence* sequence, int64_t count, int64_t num_kept) {
  if (!has_tails()) {
    return count;
  }
  const std::string& tenant = sequence->spec.tenant;
  TailTable& tail = sequence->tail;
  const int64_t wanted = CeilDiv(sequence->planned + count, block_size_) - tail.end();
  const int64_t spare = manager_->num_free_tails_for(tenant) - num_kept;
  const int64_t given = std::clamp<int64_t>(spare, 0, std::max<int64_t>(0, wanted));
  TESSERA_CHECK(manager_->AllocateTails(given, &tail.blocks, tenant));
  return std::min(count, tail.end() * block_size_ - sequence->planned);
}

std::vector<BlockId> SequenceBlocks::TakeUnnamedTail(Sequence* sequence) {
  TailTable& tail = sequence->tail;
  std::vector<BlockId> unnamed(tail.blocks.end() - (tail.end() - tail.num_named),
                               tail.blocks.end());
  tail.num_named = tail.end();
  return unnamed;
}

void SequenceBlocks::Release(Sequence* sequence) {
  if (sequence->steps_in_flight > 0) {
    deferred_.push_back({.step = sequence->last_step,
                         .blocks = std::move(sequence->blocks),
                         .tail_blocks = std::move(sequence->tail.blocks)});
  } else {
    manager_->Release(sequence->blocks);
    manager_->ReleaseTails(sequence->tail.blocks);
  }
  std::erase(holders_, sequence);
}

void SequenceBlocks::TakeForProbe(uint64_t step, std::vector<BlockId>* blocks,
                                  std::vector<BlockId>* tail_blocks) {
  TESSERA_CHECK(manager_->Allocate(1, blocks));
  TESSERA_CHECK(manager_->AllocateTails(has_tails() ? 1 : 0, tail_blocks));
  manager_->BeforeWrite(*blocks);
  manager_->BeforeTailWrite(*tail_blocks);
  deferred_.push_back({.step = step, .blocks = *blocks, .tail_blocks = *tail_blocks});
}

int64_t SequenceBlocks::FirstTail(int64_t position) const {
  return std::max<int64_t>(0, position - tail_tokens_) / block_size_;
}

void SequenceBlocks::TakeComputed(const PrefixHash& hash, Sequence* sequence) {
  RegisterFilled(hash, sequence);
  ReleasePassedTail(sequence);
}

void SequenceBlocks::RegisterFilled(const PrefixHash& hash, Sequence* sequence) {
  const int64_t num_full = sequence->computed / block_size_;
  if (!enable_prefix_caching_ || sequence->cursor.broken ||
      num_full <= sequence->cursor.num_blocks) {
    return;
  }
  hash.ExtendAll(sequence->root, sequence->tokens, block_size_, &sequence->keys);
  const PrefixQuery query = sequence->query(num_full);
  while (sequence->cursor.num_blocks < num_full && !sequence->cursor.broken) {
    const auto idx = static_cast<size_t>(sequence->cursor.num_blocks);
    manager_->Register(query, sequence->blocks[idx], &sequence->cursor);
    if (has_tails()) {
      // Still there: it holds a token of the step that was just accepted.
      manager_->KeepTail(
          sequence->cursor,
          sequence->tail.blocks.at(idx - static_cast<size_t>(sequence->tail.begin)));
    }
  }
}

void SequenceBlocks::ReleasePassedTail(Sequence* sequence) {
  TailTable& tail = sequence->tail;
  const int64_t count = FirstTail(sequence->computed) - tail.begin;
  if (!has_tails() || count <= 0) {
    return;
  }
  manager_->ReleaseTails(std::span(tail.blocks).first(static_cast<size_t>(count)));
  tail.blocks.erase(tail.blocks.begin(), tail.blocks.begin() + count);
  tail.begin += count;
}

void SequenceBlocks::ReleaseDeferred(uint64_t step) {
  std::erase_if(deferred_, [&](const DeferredRelease& release) {
    if (release.step > step) {
      return false;
    }
    manager_->Release(release.blocks);
    manager_->ReleaseTails(release.tail_blocks);
    return true;
  });
}

int64_t SequenceBlocks::num_deferred() const {
  int64_t count = 0;
  for (const DeferredRelease& release : deferred_) {
    count += std::ssize(release.blocks);
  }
  return count;
}

int64_t SequenceBlocks::num_deferred_tails() const {
  int64_t count = 0;
  for (const DeferredRelease& release : deferred_) {
    count += std::ssize(release.tail_blocks);
  }
  for (const Sequence* sequence : holders_) {
    count += std::max<int64_t>(0, FirstTail(sequence->planned) - sequence->tail.begin);
  }
  return count;
}

absl::Status SequenceBlocks::CheckTable(const Sequence& sequence) const {
  if (sequence.planned > std::ssize(sequence.blocks) * block_size_) {
    return InternalF("sequence {} planned {} tokens in {} blocks", sequence.spec.id,
                     sequence.planned, sequence.blocks.size());
  }
  const TailTable& tail = sequence.tail;
  if (has_tails() &&
      (sequence.planned > tail.num_named * block_size_ || tail.num_named > tail.end() ||
       tail.begin != FirstTail(sequence.computed))) {
    return InternalF(
        "sequence {} with {} computed and {} planned tokens holds tail blocks {} to {}, "
        "named up to {}",
        sequence.spec.id, sequence.computed, sequence.planned, tail.begin, tail.end(),
        tail.num_named);
  }
  return absl::OkStatus();
}

absl::Status SequenceBlocks::CheckInvariants(std::span<Sequence* const> running) const {
  TESSERA_RETURN_IF_ERROR(manager_->CheckInvariants());
  ReferenceCounts blocks(manager_->num_blocks());
  ReferenceCounts tails(manager_->tail_pool().num_blocks());
  for (const Sequence* sequence : running) {
    TESSERA_RETURN_IF_ERROR(CheckTable(*sequence));
    blocks.Add(sequence->blocks);
    tails.Add(sequence->tail.blocks);
  }
  for (const DeferredRelease& release : deferred_) {
    blocks.Add(release.blocks);
    tails.Add(release.tail_blocks);
  }
  TESSERA_RETURN_IF_ERROR(blocks.Compare(
      "block", [this](BlockId block) { return manager_->reference_count(block); }));
  return tails.Compare("tail block", [this](BlockId block) {
    return manager_->tail_pool().reference_count(block);
  });
}

}  // namespace tessera::coordinator
