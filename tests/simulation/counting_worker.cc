#include "tests/simulation/counting_worker.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "common/status.h"
#include "common/status_macros.h"
#include "tests/testing/stub_worker.h"

namespace tessera::testing {
namespace {

constexpr uint64_t kVocabSize = 32000;
// Blocks of a sequence that are looked at in each step.
constexpr uint64_t kBlocksChecked = 2;
// A draft stands in so many of 100 cases.
constexpr uint64_t kRightDrafts = 60;

template <typename... Args>
absl::Status BadPlan(fmt::format_string<Args...> format, Args&&... args) {
  return StatusF(absl::StatusCode::kFailedPrecondition, format,
                 std::forward<Args>(args)...);
}

uint64_t Draw(uint64_t seed, uint64_t position, int32_t purpose) {
  return StubHistoryHash(StubHistoryHash(seed, purpose) ^ position, purpose);
}

}  // namespace

int32_t CountedToken(uint64_t seed, size_t position) {
  return static_cast<int32_t>(Draw(seed, position, 1) % kVocabSize);
}

CountingWorker::CountingWorker(const coordinator::SchedulerOptions& options,
                               std::function<uint64_t(uint64_t)> tenant_of)
    : options_(options),
      tenant_of_(std::move(tenant_of)),
      slots_(static_cast<size_t>(options.max_num_seqs)),
      memory_(static_cast<size_t>(options.num_blocks), 0),
      disk_({.num_slots = {options.num_disk_blocks, options.num_disk_tail_blocks},
             .max_copies = options.max_disk_copies,
             .max_delay = 4,
             .failed_percent = 10,
             .seed = options.prefix_hash_key[0]}) {}

std::vector<uint64_t> CountingWorker::LiveSeeds() const {
  std::vector<uint64_t> seeds;
  for (const Slot& slot : slots_) {
    if (slot.live) {
      seeds.push_back(slot.seed);
    }
  }
  return seeds;
}

void CountingWorker::Send(const proto::StepPlan& plan, Transfers* transfers) const {
  for (const proto::BlockTransfer& send : plan.sends) {
    (*transfers)[send.id] = send.tail ? 0 : memory_.at(send.block);
  }
}

absl::StatusOr<proto::StepResult> CountingWorker::Execute(const proto::StepPlan& plan,
                                                          const Transfers& transfers,
                                                          RankWork* work) {
  if (plan.step != step_ + 1) {
    return BadPlan("step {} after step {}", plan.step, step_);
  }
  step_ = plan.step;
  proto::StepResult result;
  result.epoch = plan.epoch;
  result.step = plan.step;
  TESSERA_RETURN_IF_ERROR(CopyDisk(plan, &result));
  TESSERA_RETURN_IF_ERROR(Copy(plan, transfers));
  work->num_copies = std::ssize(plan.offloads) + std::ssize(plan.restores) +
                     std::ssize(plan.sends) + std::ssize(plan.receives);
  if (std::ssize(plan.sends) > options_.max_transfers ||
      std::ssize(plan.receives) > options_.max_transfers) {
    return BadPlan("{} sends and {} receives, expected at most {}", plan.sends.size(),
                   plan.receives.size(), options_.max_transfers);
  }
  for (const uint32_t slot : plan.releases) {
    if (slot >= slots_.size() || !slots_[slot].live) {
      return BadPlan("release of slot {}, which is free", slot);
    }
    slots_[slot] = Slot();
  }
  for (const proto::SlotAdmission& admission : plan.admissions) {
    TESSERA_RETURN_IF_ERROR(Admit(admission));
  }
  for (const proto::BlockAppend& append : plan.appends) {
    if (append.slot >= slots_.size() || !slots_[append.slot].live) {
      return BadPlan("blocks for slot {}, which is free", append.slot);
    }
    std::vector<uint32_t>& blocks = slots_[append.slot].blocks;
    blocks.insert(blocks.end(), append.blocks.begin(), append.blocks.end());
  }
  for (const proto::SlotWork& slot_work : plan.work) {
    TESSERA_RETURN_IF_ERROR(Work(slot_work, &result, work));
  }
  for (const proto::SlotWork& slot_work : plan.work) {
    TESSERA_RETURN_IF_ERROR(CheckSomeBlocks(slots_[slot_work.slot], plan.step));
  }
  if (work->num_tokens > options_.max_num_batched_tokens) {
    return BadPlan("{} tokens in a step, expected at most {}", work->num_tokens,
                   options_.max_num_batched_tokens);
  }
  return result;
}

absl::Status CountingWorker::CopyDisk(const proto::StepPlan& plan,
                                      proto::StepResult* result) {
  return disk_.Execute(
      plan,
      [this](bool tail, uint32_t block) {
        const auto found = host_memory_.find(block);
        return tail || found == host_memory_.end() ? std::optional<uint64_t>(0)
                                                   : found->second;
      },
      [this](bool tail, uint32_t block, uint64_t content) {
        if (!tail) {
          host_memory_[block] = content;
        }
      },
      result);
}

absl::Status CountingWorker::Copy(const proto::StepPlan& plan,
                                  const Transfers& transfers) {
  for (const proto::BlockCopy& copy : plan.offloads) {
    if (!copy.tail) {
      host_memory_[copy.host] = memory_.at(copy.device);
    }
  }
  for (const proto::BlockTransfer& receive : plan.receives) {
    const auto sent = transfers.find(receive.id);
    if (sent == transfers.end()) {
      return BadPlan("receives block {}, which nobody sends", receive.id);
    }
    if (!receive.tail) {
      host_memory_[receive.block] = sent->second;
    }
  }
  for (const proto::BlockCopy& copy : plan.restores) {
    if (copy.tail) {
      continue;
    }
    const auto found = host_memory_.find(copy.host);
    if (found == host_memory_.end()) {
      return BadPlan("restore of host block {}, which was never written", copy.host);
    }
    memory_.at(copy.device) = found->second;
  }
  return absl::OkStatus();
}

absl::Status CountingWorker::Admit(const proto::SlotAdmission& admission) {
  if (admission.slot >= slots_.size() || slots_[admission.slot].live) {
    return BadPlan("admission to slot {}, expected a free one", admission.slot);
  }
  Slot& slot = slots_[admission.slot];
  slot.live = true;
  slot.seed = admission.sampling.seed;
  slot.blocks = admission.blocks;
  slot.hash = StubHistoryHash(tenant_of_(slot.seed), 0);
  const auto width = static_cast<size_t>(options_.block_size);
  if (admission.history.size() > slot.blocks.size() * width) {
    return BadPlan("history of {} tokens in {} blocks", admission.history.size(),
                   slot.blocks.size());
  }
  for (const int32_t token : admission.history) {
    slot.hash = StubHistoryHash(slot.hash, token);
    if (++slot.length % width == 0) {
      slot.hashes.push_back(slot.hash);
    }
  }
  return absl::OkStatus();
}

absl::Status CountingWorker::CheckHistory(const Slot& slot) const {
  for (size_t idx = 0; idx < slot.hashes.size(); ++idx) {
    if (memory_.at(slot.blocks[idx]) != slot.hashes[idx]) {
      return DataLossF("block {} is no prefix of sequence {}", slot.blocks[idx],
                       slot.seed);
    }
  }
  return absl::OkStatus();
}

void CountingWorker::Compute(Slot* slot, std::span<const int32_t> tokens) {
  const auto width = static_cast<size_t>(options_.block_size);
  for (const int32_t token : tokens) {
    slot->hash = StubHistoryHash(slot->hash, token);
    memory_.at(slot->blocks.at(slot->length / width)) = slot->hash;
    if (++slot->length % width == 0) {
      slot->hashes.push_back(slot->hash);
    }
  }
}

absl::Status CountingWorker::CheckSomeBlocks(const Slot& slot, uint64_t step) const {
  for (uint64_t i = 0; i < kBlocksChecked && !slot.hashes.empty(); ++i) {
    const size_t idx = Draw(slot.seed + i, step, 3) % slot.hashes.size();
    if (memory_.at(slot.blocks[idx]) != slot.hashes[idx]) {
      return DataLossF("block {} of sequence {} was overwritten", slot.blocks[idx],
                       slot.seed);
    }
  }
  return absl::OkStatus();
}

absl::Status CountingWorker::Work(const proto::SlotWork& work, proto::StepResult* result,
                                  RankWork* totals) {
  if (work.slot >= slots_.size() || !slots_[work.slot].live) {
    return BadPlan("work for slot {}, which is free", work.slot);
  }
  Slot& slot = slots_[work.slot];
  if (work.from_sample ? !work.tokens.empty() || slot.sample < 0 : work.tokens.empty()) {
    return BadPlan("{} tokens for slot {}, from its sample: {}", work.tokens.size(),
                   work.slot, work.from_sample);
  }
  if (!slot.worked) {
    TESSERA_RETURN_IF_ERROR(CheckHistory(slot));
    slot.worked = true;
  }
  const size_t count = work.from_sample ? 1 : work.tokens.size();
  const size_t end = slot.length + count + work.num_drafts;
  if (end > slot.blocks.size() * static_cast<size_t>(options_.block_size) ||
      end > static_cast<size_t>(options_.max_model_len)) {
    return BadPlan("{} tokens of slot {} in {} blocks, of {} at most", end, work.slot,
                   slot.blocks.size(), options_.max_model_len);
  }
  const auto num_tokens = static_cast<double>(count + work.num_drafts);
  totals->num_tokens += static_cast<int64_t>(count + work.num_drafts);
  totals->num_drafts += work.num_drafts;
  totals->context_sum += num_tokens * (static_cast<double>(slot.length) + num_tokens / 2);
  Compute(&slot, work.from_sample ? std::span<const int32_t>(&slot.sample, 1)
                                  : std::span<const int32_t>(work.tokens));
  slot.sample = -1;
  for (uint32_t draft = 0; work.sample; ++draft) {
    slot.sample = CountedToken(slot.seed, slot.length);
    result->sampled.push_back({.slot = work.slot,
                               .token = slot.sample,
                               .position = static_cast<uint32_t>(slot.length),
                               .logprob = 0,
                               .top = {}});
    if (draft == work.num_drafts ||
        Draw(slot.seed, slot.length, 2) % 100 >= kRightDrafts) {
      break;
    }
    const int32_t accepted = slot.sample;
    Compute(&slot, {&accepted, 1});
    ++totals->num_accepted;
  }
  return absl::OkStatus();
}

}  // namespace tessera::testing
